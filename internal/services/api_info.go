package services

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// ping answers in what the client takes: text if it can, else JSON, else nothing.
func (c *call) ping() error {
	return c.get(func() error {
		accept := c.r.Header.Get("Accept")
		switch {
		case accept == "" || strings.Contains(accept, "text/") || strings.Contains(accept, "*/*"):
			c.out.status, c.out.plain = http.StatusOK, "pong"
			return nil
		case strings.Contains(accept, "json"):
			return c.answer("pong")
		}
		return c.answerWith(http.StatusNoContent, nil)
	})
}

func (c *call) leader() error {
	if c.cfg.Leader == "" {
		return problemf(errdefs.ErrNotFound, "There is no leader")
	}
	return c.answer(map[string]string{"leader": c.cfg.Leader})
}

func (c *call) plugins() error { return c.answer(map[string]any{"plugins": []struct{}{}}) }

// info is what Marathon's clients look for. Options that have no meaning here are null, as Marathon's unset ones are.
func (c *call) info() error {
	config := map[string]any{}
	for _, name := range []string{"access_control_allow_origin", "decline_offer_duration", "default_network_name", "env_vars_prefix",
		"launch_token", "launch_token_refresh_interval", "leader_proxy_connection_timeout_ms", "leader_proxy_read_timeout_ms",
		"max_instances_per_offer", "mesos_heartbeat_failure_threshold", "mesos_heartbeat_interval", "mesos_user",
		"min_revive_offers_interval", "offer_matching_timeout", "on_elected_prepare_timeout", "reconciliation_initial_delay",
		"reconciliation_interval", "scale_apps_initial_delay", "scale_apps_interval", "store_cache", "task_launch_confirm_timeout",
		"task_lost_expunge_initial_delay", "task_lost_expunge_interval", "task_reservation_timeout", "webui_url", "master"} {
		config[name] = nil
	}
	for name, v := range map[string]any{
		"checkpoint": true, "executor": "//cmd", "failover_timeout": 604800, "features": []string{"vips", "task_killing"},
		"framework_name": marathon.Framework, "ha": true, "hostname": strings.Split(c.cfg.Leader, ":")[0],
		"local_port_min": c.cfg.FirstPort, "local_port_max": c.cfg.LastPort, "mesos_bridge_name": "mesos-bridge",
		"mesos_leader_ui_url": "/mesos", "mesos_role": c.cfg.DefaultRole, "new_group_enforce_role": "top",
		"task_launch_timeout": c.cfg.Policy.LaunchTimeout.Milliseconds(), "maintenance_mode": false} {
		config[name] = v
	}
	return c.answer(map[string]any{
		"name": marathon.Framework, "version": c.cfg.Build, "buildref": "unknown", "elected": true, "leader": c.cfg.Leader,
		"frameworkId": marathon.Framework, "marathon_config": config,
		"zookeeper_config": map[string]any{"zk": "", "zk_compression": false, "zk_compression_threshold": 0,
			"zk_connection_timeout": 0, "zk_max_node_size": 0, "zk_max_versions": c.cfg.MaxVersions, "zk_session_timeout": 0, "zk_timeout": 0},
		"http_config": map[string]any{"http_port": nil, "https_port": nil},
	})
}

// metrics are a few real numbers in Marathon's shape.
func (c *call) metrics() error {
	c.mu.RLock()
	running, staged, missing := 0, 0, 0
	for _, f := range c.state.fleets {
		for i := range f.instances.All {
			switch {
			case i.Waiting:
				missing++
			case i.State() == kernel.Running:
				running++
			case i.State() < kernel.Running:
				staged++
			}
		}
		missing += f.missing
	}
	apps, deployments := len(c.state.Apps), len(c.state.Deployments)
	c.mu.RUnlock()
	counter := func(n int64) map[string]int64 { return map[string]int64{"count": n} }
	gauge := func(n int) map[string]int { return map[string]int{"value": n} }
	empty := map[string]any{}
	return c.answer(map[string]any{"version": "5.0.0", "histograms": empty, "meters": empty, "timers": empty,
		"counters": map[string]any{
			"marathon.http.requests.count":        counter(c.count.requests.Load()),
			"marathon.deployments.started.count":  counter(c.count.started.Load()),
			"marathon.deployments.finished.count": counter(c.count.finished.Load()),
			"marathon.instances.launched.count":   counter(c.count.launched.Load()),
			"marathon.instances.stopped.count":    counter(c.count.stopped.Load()),
		},
		"gauges": map[string]any{
			"marathon.apps.active.gauge":          gauge(apps),
			"marathon.deployments.active.gauge":   gauge(deployments),
			"marathon.instances.running.gauge":    gauge(running),
			"marathon.instances.staged.gauge":     gauge(staged),
			"marathon.instances.unlaunched.gauge": gauge(missing),
		}})
}

// Times of the event stream.
const (
	heartbeat    = 10 * time.Second
	writeTimeout = 30 * time.Second // of one event; a reader that takes longer is cut off
)

// events streams what happens until the client goes, falls too far behind, or this leadership ends.
func (c *call) events() error {
	if !strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		return errMethod
	}
	c.out.stream = c.stream
	return nil
}

func (c *call) stream(w http.ResponseWriter) {
	r := c.hub.join(c.r.URL.Query()["event_type"])
	attached := func(kind string) {
		c.hub.publish([]marathon.Event{{Type: kind, Data: marathon.StreamAttached{Head: marathon.NewHead(kind, time.Now()), RemoteAddress: c.r.RemoteAddr}}})
	}
	defer attached("event_stream_detached")
	defer c.hub.leave(r)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=UTF-8")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	attached("event_stream_attached")
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		_ = out.Flush()
		text := "\r\n"
		select {
		case m, ok := <-r.c:
			if !ok {
				return
			}
			text = fmt.Sprintf("event: %s\r\ndata: %s\r\n\r\n", m.kind, m.data)
		case <-tick.C:
		case <-c.r.Context().Done():
			return
		case <-c.loop.Ended():
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer can
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
	}
}
