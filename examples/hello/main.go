// Command hello is the example service: it answers every request with who it is, says whether it is well at /health,
// and finishes what it began when it is told to stop.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "lookup" {
		lookup(os.Args[2])
		return
	}
	port := os.Getenv("PORT0")
	if port == "" {
		port = "8080"
	}
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	greeting := os.Getenv("GREETING")
	if greeting == "" {
		greeting = "Hello"
	}
	version := os.Getenv("MARATHON_APP_VERSION") // in a cluster's pod there is none
	if version != "" {
		version = ", version " + version
	}
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /sick", func(w http.ResponseWriter, r *http.Request) { sick.Store(true) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s from %s%s\n", greeting, os.Getenv("MESOS_TASK_ID"), version)
	})
	log.SetOutput(os.Stdout)
	if err := serve(":"+port, mux); err != nil {
		log.Fatal(err)
	}
}

// lookup asks the name server of the container: what a program in it would see.
func lookup(name string) {
	addresses, err := net.LookupHost(name)
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range addresses {
		fmt.Println(a)
	}
}

func serve(addr string, h http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	log.Printf("%s listens on %s", os.Getenv("MESOS_TASK_ID"), addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Print("stopping")
	last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
