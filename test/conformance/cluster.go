package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// Limits of what one asks of the datacenter.
const (
	createWithin = 20 * time.Minute
	askWithin    = 10 * time.Minute
)

// What a node and a control plane are granted. Tests start up to a dozen pods at once.
var grants = []string{"--cpus", "0.5", "--mem", "2048", "--disk", "16384"}

// datacenter is a Marina that makes clusters.
type datacenter struct {
	program string
	env     []string
	started *testbed.Datacenter // if it is ours
	shop    *testbed.Workshop
}

// openDatacenter takes the one of $MARINA_STATE if it runs, or starts one.
func openDatacenter(ctx context.Context, root string) (*datacenter, error) {
	d := &datacenter{program: filepath.Join(root, "bin", "marina"), env: os.Environ()}
	if p := os.Getenv("MARINA_BIN"); p != "" {
		d.program = p
	}
	if _, err := d.ask(ctx, askWithin, "status"); err == nil {
		return d, nil
	}
	say("no datacenter runs here; starting one")
	os.Setenv("MARINA_BIN", d.program)
	var err error
	if d.shop, err = testbed.OpenWorkshop(); err != nil {
		return nil, err
	}
	if d.started, err = d.shop.Open(); err != nil {
		return nil, errors.Join(err, d.shop.Close())
	}
	d.env = d.started.Env
	return d, nil
}

// close takes away what openDatacenter started.
func (d *datacenter) close() error {
	if d.started == nil {
		return nil
	}
	return errors.Join(d.started.Close(), d.shop.Close())
}

// ask runs a marina command and returns what it prints.
func (d *datacenter) ask(ctx context.Context, within time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.program, args...)
	cmd.Env = d.env
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("marina %s: %w: %s", strings.Join(args, " "), err,
			strings.TrimSpace(complaint.String()+string(out)))
	}
	return string(out), nil
}

// cluster is one of the datacenter's that was made for a minor's tests.
type cluster struct {
	d          *datacenter
	name       string
	kubeconfig string
}

// createCluster makes a minor's cluster anew, and waits until it is ready.
func (d *datacenter) createCluster(ctx context.Context, m *Minor, nodes int) (*cluster, error) {
	minor := strings.TrimPrefix(m.name, "v")
	c := &cluster{d: d, name: "conf-" + strings.ReplaceAll(minor, ".", ""),
		kubeconfig: filepath.Join(m.cache, "kubeconfig")}
	if _, err := d.ask(ctx, askWithin, "cluster", "show", c.name); err == nil {
		if err := c.delete(ctx); err != nil { // of an interrupted run
			return nil, err
		}
	}
	say("%s: making cluster %s, nodes: %d", m.name, c.name, nodes)
	begun := time.Now()
	args := append([]string{"cluster", "create", c.name, "--version", minor, "--nodes", strconv.Itoa(nodes), "--wait",
		"--timeout", createWithin.String()}, grants...)
	if _, err := d.ask(ctx, createWithin+askWithin, args...); err != nil {
		return nil, errors.Join(err, c.delete(ctx))
	}
	if _, err := d.ask(ctx, askWithin, "cluster", "kubeconfig", c.name, "--ttl", "48h", "--output",
		c.kubeconfig); err != nil {
		return nil, errors.Join(err, c.delete(ctx))
	}
	say("%s: cluster %s is ready after %v", m.name, c.name, time.Since(begun).Round(time.Second))
	return c, nil
}

// load gives the cluster's nodes an image.
func (c *cluster) load(ctx context.Context, archive string) error {
	_, err := c.d.ask(ctx, askWithin, "image", "load", archive, "--cluster", c.name)
	return err
}

func (c *cluster) delete(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // also after an interruption
	_, err := c.d.ask(ctx, askWithin, "cluster", "delete", c.name, "--yes", "--wait")
	return err
}
