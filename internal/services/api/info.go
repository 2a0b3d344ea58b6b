package api

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"

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
	leader := c.services.Settings().Leader
	if leader == "" {
		return marathon.Problemf(errdefs.ErrNotFound, "There is no leader")
	}
	return c.answer(map[string]string{"leader": leader})
}

func (c *call) plugins() error { return c.answer(map[string]any{"plugins": []struct{}{}}) }

// info answers with the options that Marathon's clients look for. Those that have no meaning here are null, as
// Marathon's unset ones are.
func (c *call) info() error {
	config, set := map[string]any{}, c.services.Settings()
	for _, name := range []string{"access_control_allow_origin", "decline_offer_duration", "default_network_name",
		"env_vars_prefix",
		"launch_token", "launch_token_refresh_interval", "leader_proxy_connection_timeout_ms", "leader_proxy_read_timeout_ms",
		"max_instances_per_offer", "mesos_heartbeat_failure_threshold", "mesos_heartbeat_interval", "mesos_user",
		"min_revive_offers_interval", "offer_matching_timeout", "on_elected_prepare_timeout", "reconciliation_initial_delay",
		"reconciliation_interval", "scale_apps_initial_delay", "scale_apps_interval", "store_cache",
		"task_launch_confirm_timeout",
		"task_lost_expunge_initial_delay", "task_lost_expunge_interval", "task_reservation_timeout", "webui_url", "master"} {
		config[name] = nil
	}
	for name, v := range map[string]any{
		"checkpoint": true, "executor": "//cmd", "failover_timeout": 604800, "features": []string{"vips", "task_killing"},
		"framework_name": marathon.Framework, "ha": true, "hostname": strings.Split(set.Leader, ":")[0],
		"local_port_min": set.FirstPort, "local_port_max": set.LastPort, "mesos_bridge_name": "mesos-bridge",
		"mesos_leader_ui_url": "/mesos", "mesos_role": set.DefaultRole, "new_group_enforce_role": "top",
		"task_launch_timeout": set.LaunchTimeout.Milliseconds(), "maintenance_mode": false} {
		config[name] = v
	}
	return c.answer(map[string]any{
		"name": marathon.Framework, "version": set.Build, "buildref": "unknown", "elected": true, "leader": set.Leader,
		"frameworkId": marathon.Framework, "marathon_config": config,
		"zookeeper_config": map[string]any{"zk": "", "zk_compression": false, "zk_compression_threshold": 0,
			"zk_connection_timeout": 0, "zk_max_node_size": 0, "zk_max_versions": set.MaxVersions, "zk_session_timeout": 0,
			"zk_timeout": 0},
		"http_config": map[string]any{"http_port": nil, "https_port": nil},
	})
}

// metrics are a few real numbers in Marathon's shape.
func (c *call) metrics() error {
	f := c.services.Figures()
	counter := func(n int64) map[string]int64 { return map[string]int64{"count": n} }
	gauge := func(n int) map[string]int { return map[string]int{"value": n} }
	empty := map[string]any{}
	return c.answer(map[string]any{"version": "5.0.0", "histograms": empty, "meters": empty, "timers": empty,
		"counters": map[string]any{
			"marathon.http.requests.count":        counter(c.api.requests.Load()),
			"marathon.deployments.started.count":  counter(f.Started),
			"marathon.deployments.finished.count": counter(f.Finished),
			"marathon.instances.launched.count":   counter(f.Launched),
			"marathon.instances.stopped.count":    counter(f.Stopped),
		},
		"gauges": map[string]any{
			"marathon.apps.active.gauge":          gauge(f.Apps),
			"marathon.deployments.active.gauge":   gauge(f.Deployments),
			"marathon.instances.running.gauge":    gauge(f.Running),
			"marathon.instances.staged.gauge":     gauge(f.Staged),
			"marathon.instances.unlaunched.gauge": gauge(f.Missing),
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
	events := c.services.Subscribe(c.r.URL.Query()["event_type"], c.r.RemoteAddr)
	defer events.Close()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=UTF-8")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		_ = out.Flush()
		text := "\r\n"
		select {
		case m, ok := <-events.Events():
			if !ok {
				return
			}
			text = fmt.Sprintf("event: %s\r\ndata: %s\r\n\r\n", m.Kind, m.Data)
		case <-tick.C:
		case <-c.r.Context().Done():
			return
		case <-c.services.Ended():
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer can
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
	}
}
