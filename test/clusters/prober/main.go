// Command prober is what pods of the proof run: it serves, and, called by exec, it tries what a test asks for and says
// what came of it, a line for each thing tried.
//
//	prober serve PORT          answers with its host name, at /peer with the caller's address, at /large with a MiB
//	prober wait                serves nobody
//	prober dial ADDR...        "ADDR open" or "ADDR closed: why"
//	prober lookup NAME...      "NAME addresses" or "NAME unknown: why"
//	prober get URL             the answer's body
//	prober cat PATH...         files
//	prober write PATH TEXT     writes a file and flushes it
//	prober find PATH...        "PATH there" or "PATH missing: why"
//	prober power               with the node at /node: what only a machine's root may do: "WHAT allowed" or "WHAT refused: why"
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tryFor bounds one try to reach something; what drops packets is closed after it.
const tryFor = 3 * time.Second

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("prober: see its source for what it can do")
	}
	verb, args := os.Args[1], os.Args[2:]
	verbs := map[string]func([]string) error{"serve": serve, "wait": wait, "dial": dial, "lookup": lookup, "get": get, "cat": cat, "write": write,
		"find": find, "power": power}
	f := verbs[verb]
	if f == nil {
		log.Fatalf("prober: %q is nothing it can do", verb)
	}
	if err := f(args); err != nil {
		log.Fatalf("prober: %v", err)
	}
}

func serve(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc("/peer", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) })
	srv := &http.Server{Addr: ":" + args[0], Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	fmt.Println(name, "serves port", args[0])
	if err := srv.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

func wait([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	<-ctx.Done()
	return nil
}

// each tries all at the same time and prints in their order.
func each(args []string, try func(string) string) error {
	said := make([]string, len(args))
	var wg sync.WaitGroup
	for i, a := range args {
		wg.Go(func() { said[i] = try(a) })
	}
	wg.Wait()
	for i, a := range args {
		fmt.Println(a, strings.ReplaceAll(said[i], "\n", " "))
	}
	return nil
}

func dial(args []string) error {
	return each(args, func(a string) string {
		conn, err := net.DialTimeout("tcp", a, tryFor)
		if err != nil {
			return "closed: " + err.Error()
		}
		conn.Close()
		return "open"
	})
}

func lookup(args []string) error {
	return each(args, func(name string) string {
		ctx, cancel := context.WithTimeout(context.Background(), 3*tryFor)
		defer cancel()
		all, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		if err != nil {
			return "unknown: " + err.Error()
		}
		out := make([]string, len(all))
		for i, a := range all {
			out[i] = a.String()
		}
		return strings.Join(out, " ")
	})
}

func get(args []string) error {
	client := &http.Client{Timeout: 2 * tryFor, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Get(args[0])
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		fmt.Println("status", resp.StatusCode)
	}
	_, err = io.Copy(os.Stdout, io.LimitReader(resp.Body, 2<<20))
	return err
}

func cat(args []string) error {
	for _, name := range args {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		os.Stdout.Write(b)
	}
	return nil
}

func write(args []string) error {
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	if _, err := f.WriteString(args[1]); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func find(args []string) error {
	return each(args, func(path string) string {
		if _, err := os.Lstat(path); err != nil {
			return "missing: " + err.Error()
		}
		return "there"
	})
}
