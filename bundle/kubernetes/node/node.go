package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	socketWithin = 30 * time.Second // for containerd to listen, before the node starts over
	socketEvery  = 20 * time.Millisecond
	serverWithin = 20 * time.Second // for the API server to listen, before the kubelet starts all the same
	importTries  = 5

	// Together less than 5 s, which is what doc.go promises.
	kubeletGrace    = 1500 * time.Millisecond
	containerdGrace = 2 * time.Second
	restGrace       = 2500 * time.Millisecond // for pods, from TERM to KILL
)

// Node runs the programs of one node.
type Node struct {
	file   string // of config
	config *Config
	env    []string // of the programs
	log    *Log
	reaper *Reaper
}

func newNode(file string, config *Config, out io.Writer) *Node {
	return &Node{
		file: file, config: config, log: &Log{out: out}, reaper: &Reaper{},
		env: []string{
			"PATH=" + runtimeDir + ":/usr/sbin:/usr/bin:/sbin:/bin", // containerd finds its shim by it
			"HOME=/root",
			addressEnv + "=" + config.Address,
			"GOGC=50", // all three are small and mostly idle: memory is worth more than the little work
		},
	}
}

// Run prepares the node and keeps its programs running until ctx ends, then stops everything in the container. An error
// means that the node could not be started.
func (n *Node) Run(ctx context.Context) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go n.reaper.Run(ended)
	size, pki := newWatch(sizeFile), newWatch(pkiDir+"/*") // before what they watch is read
	images, err := listImages(addonsDir + "/images")
	if err != nil {
		return err
	}
	if err := errors.Join(n.prepare(), n.config.writeStatic(images), n.config.writeKubelet()); err != nil {
		return err
	}
	program := func(name string, grace time.Duration, args ...string) *Program {
		return newProgram(name, args, n.env, grace, n.reaper, n.log)
	}
	containerd := program("containerd", containerdGrace, runtimeDir+"/containerd", "--config", runDir+"/containerd.toml")
	kubelet := program("kubelet", kubeletGrace, n.config.kubeletArgs()...)
	network := program("node-network", kubeletGrace, n.config.networkArgs(n.file)...)

	below, stop := context.WithCancel(context.WithoutCancel(ctx)) // containerd's; it goes last
	var runtime, rest sync.WaitGroup
	runtime.Go(func() { containerd.Run(below) })
	defer func() {
		stop()
		n.end()
		runtime.Wait()
	}()
	if err := listens(ctx, "unix", socket, socketWithin); err != nil && ctx.Err() == nil {
		return fmt.Errorf("containerd: %w", err)
	}
	rest.Go(func() {
		n.awaitServer(ctx)
		kubelet.Run(ctx)
	})
	rest.Go(func() {
		n.bringImages(ctx, images)
		network.Run(ctx) // not before: with it the node is Ready, and pods come
	})
	defer rest.Wait() // before the above
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			n.log.Say("stopping")
			return nil
		case <-look.C:
			n.apply(size.Changed(), pki.Changed(), kubelet, network)
		}
	}
}

// apply starts again what has to see a change.
func (n *Node) apply(size, pki bool, kubelet, network *Program) {
	if size {
		if err := n.config.writeKubelet(); err != nil {
			n.log.Say("the node keeps its size: %v", err)
			size = false
		}
	}
	if size || pki {
		kubelet.Restart()
	}
	if pki {
		network.Restart()
	}
}

// awaitServer waits for the API server to listen, for a while: what the kubelet cannot reach when it starts it asks for
// again later and later.
func (n *Node) awaitServer(ctx context.Context) {
	if server, err := url.Parse(n.config.Server); err == nil {
		_ = listens(ctx, "tcp", server.Host, serverWithin)
	}
}

// bringImages imports the add-ons' images. It returns also when it gave up on them: a node with images of its own pods
// already there is of use.
func (n *Node) bringImages(ctx context.Context, images []Image) {
	wait := firstWait
	for try := 1; ; try++ {
		err := n.importImages(ctx, images)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.log.Say("importing images: %v", err)
		if try == importTries {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// listens waits for somebody who takes connections at an address.
func listens(ctx context.Context, network, address string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(socketEvery)
	defer tick.Stop()
	for {
		conn, err := net.DialTimeout(network, address, within)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// end ends everything else in the container, pods too. Only a container's first process may: to anybody else,
// "everything" is the machine.
func (n *Node) end() {
	if os.Getpid() != 1 {
		return
	}
	_ = syscall.Kill(-1, syscall.SIGTERM)
	tick := time.NewTicker(socketEvery)
	defer tick.Stop()
	late := time.After(restGrace)
	for syscall.Kill(-1, 0) == nil {
		select {
		case <-late:
			_ = syscall.Kill(-1, syscall.SIGKILL)
			return
		case <-tick.C:
		}
	}
}
