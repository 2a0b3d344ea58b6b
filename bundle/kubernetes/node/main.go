package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() {
	debug.SetGCPercent(25) // the heap is far below the runtime's smallest at 100
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "marina-node:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: marina-node CONFIG | marina-node check")
	}
	if args[0] == "check" {
		if err := check(healthz, readyFile); err != nil {
			return err
		}
		fmt.Fprintln(out, "Ready")
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := readConfig(args[0])
	if err != nil {
		return err
	}
	return newNode(args[0], config, out).Run(ctx)
}

// checkWithin bounds the wait for the kubelet's answer.
const checkWithin = 3 * time.Second

// check says what keeps the node from being ready. The exchange is written out: a client of net/http would double this
// program for one line of it.
func check(address, ready string) error {
	conn, err := net.DialTimeout("tcp", address, checkWithin)
	if err != nil {
		return errors.New("the kubelet does not listen yet")
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(checkWithin)) // of a TCP connection, which has deadlines
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n"); err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 8<<10))
	if err != nil {
		return fmt.Errorf("the kubelet does not answer: %w", err)
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	if fields := strings.Fields(head); len(fields) < 2 || fields[1] != "200" {
		return fmt.Errorf("the kubelet is not healthy: %.200s", strings.TrimSpace(body))
	}
	if _, err := os.Stat(ready); err != nil {
		return errors.New("the node's network is not ready")
	}
	return nil
}
