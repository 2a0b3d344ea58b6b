package policy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// gateLimit bounds a pod's wait for its rules; a little less than the plugin waits, so that it hears why.
	gateLimit = 9500 * time.Millisecond
	// gateAsking bounds the requests at a time; more wait for their turn within their own limit.
	gateAsking  = 256
	gateRequest = 64 << 10
	// gateSettle bounds the arrival of a request.
	gateSettle = 5 * time.Second
)

// request and answer are one line of JSON each: the plugin bundle/runtime/gate sends the one and gets the other.
type request struct {
	Op        string   `json:"op"` // "add" or "del"
	Container string   `json:"container"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	Addresses []string `json:"addresses"`
}

type answer struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// ServeGate answers the plugin's questions on l until ctx ends, which closes l and is no error. To "add" it answers OK
// when the pod is known from the API and the rules for all its addresses stand; "del" ends the container's claim.
func (e *Engine) ServeGate(ctx context.Context, l net.Listener) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	turns := make(chan struct{}, gateAsking)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("gate: %w", err)
		}
		turns <- struct{}{}
		asking.Go(func() {
			defer func() { <-turns }()
			defer conn.Close()
			e.converse(ctx, conn)
		})
	}
}

// converse reads one request and writes one answer. A plugin that went away learns nothing, and its claim stays until
// DEL.
func (e *Engine) converse(ctx context.Context, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(gateSettle))
	line, err := bufio.NewReader(io.LimitReader(conn, gateRequest)).ReadBytes('\n')
	if err != nil {
		return
	}
	var r request
	err = json.Unmarshal(line, &r)
	if err == nil {
		err = e.handle(ctx, r)
	}
	a := answer{OK: err == nil}
	if err != nil {
		a.Error = err.Error()
	}
	_ = conn.SetDeadline(time.Now().Add(gateSettle))
	_ = json.NewEncoder(conn).Encode(a)
}

func (e *Engine) handle(ctx context.Context, r request) error {
	if r.Container == "" {
		return errors.New("container: it must be named")
	}
	switch r.Op {
	case "add":
		return e.admit(ctx, r)
	case "del":
		dropped, err := e.claims.drop(r.Container)
		if dropped {
			signal(e.dirty)
		}
		return err
	}
	return fmt.Errorf("op %q: expected add or del", r.Op)
}

// admit claims the addresses for the pod and waits until rules for them stand.
func (e *Engine) admit(ctx context.Context, r request) error {
	c := claim{Container: r.Container, Namespace: r.Namespace, Name: r.Name, UID: r.UID}
	for _, s := range r.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("address: %w", err)
		}
		if a.Is4() {
			c.Addresses = append(c.Addresses, a)
		}
	}
	if c.Namespace == "" || c.Name == "" || len(c.Addresses) == 0 {
		return errors.New("a pod's namespace, name and an IPv4 address are needed")
	}
	if err := e.claims.add(c); err != nil {
		return err
	}
	signal(e.urgent)
	limit := time.NewTimer(gateLimit)
	defer limit.Stop()
	for {
		stand, changed := e.standing(c)
		if stand {
			return nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return e.why(c)
		case <-ctx.Done():
			return errors.New("the engine ends")
		}
	}
}

// standing says whether the rules for all of c's addresses are those of c's pod; if not, the channel tells when to look
// again.
func (e *Engine) standing(c claim) (bool, <-chan struct{}) {
	p, err := e.pods.Pods(c.Namespace).Get(c.Name)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil || !c.of(p) {
		return false, e.changed
	}
	for _, a := range c.Addresses {
		if e.stands[a] != (podID{c.Namespace, c.Name, string(p.UID)}) {
			return false, e.changed
		}
	}
	return true, nil
}

func (e *Engine) why(c claim) error {
	p, err := e.pods.Pods(c.Namespace).Get(c.Name)
	switch {
	case err != nil:
		return errors.New("the API has not told of this pod")
	case !c.of(p):
		return fmt.Errorf("the API tells of pod %s of that name, not of %s", p.UID, c.UID)
	case p.Spec.NodeName != e.cfg.Node:
		return fmt.Errorf("the API says that this pod is on node %q", p.Spec.NodeName)
	}
	return errors.New("its rules are not written")
}
