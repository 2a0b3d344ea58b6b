package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	firstWait = 200 * time.Millisecond // before a program that ended is started again; doubles
	longest   = 10 * time.Second       // wait, and the time after which a program counts as well
	maxLine   = 4 << 10                // bytes of output that are passed on as one line
)

// A Program is kept running.
type Program struct {
	Name  string
	Args  []string
	Env   []string
	Grace time.Duration // from TERM to KILL

	reaper  *Reaper
	log     *Log
	restart chan struct{} // holds at most one wish
}

func newProgram(name string, args, env []string, grace time.Duration, r *Reaper, l *Log) *Program {
	return &Program{Name: name, Args: args, Env: env, Grace: grace, reaper: r, log: l, restart: make(chan struct{}, 1)}
}

// Restart asks for the program to be started again. It does not wait.
func (p *Program) Restart() {
	select {
	case p.restart <- struct{}{}:
	default: // somebody asked already
	}
}

// Run starts the program, and again whenever it ends, until ctx does. It then stops the program and returns once it
// ended.
func (p *Program) Run(ctx context.Context) {
	var wait time.Duration
	for {
		started := time.Now()
		asked, err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if asked {
			p.log.Say("%s starts again", p.Name)
			wait = 0
			continue
		}
		wait = backoff(wait, time.Since(started))
		p.log.Say("%s ended (%v), starts again in %v", p.Name, err, wait)
		select {
		case <-ctx.Done():
			return
		case <-p.restart:
		case <-time.After(wait):
		}
	}
}

// backoff returns the wait for the next start after one that ran for so long and was waited for last, zero if it was
// the first.
func backoff(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= longest {
		return firstWait
	}
	return min(2*last, longest)
}

// once runs the program to its end, and says whether that was asked for.
func (p *Program) once(ctx context.Context) (asked bool, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	pid, ended, err := p.reaper.Start(p.Args, p.Env, w)
	w.Close()
	if err != nil {
		r.Close()
		return false, err
	}
	// Not waited for: who was started by the program may hold its output open for as long as the node lives.
	go p.log.Copy(p.Name, r)
	select {
	case status := <-ended:
		return false, reason(status)
	case <-p.restart:
		asked = true
	case <-ctx.Done():
	}
	p.reaper.Signal(pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(p.Grace):
		p.reaper.Signal(pid, syscall.SIGKILL)
		<-ended
	}
	return asked, nil
}

func reason(s syscall.WaitStatus) error {
	if s.Signaled() {
		return fmt.Errorf("signal: %v", s.Signal())
	}
	return fmt.Errorf("exit status %d", s.ExitStatus())
}

// A Log is the node's output: lines, each with the name of who says it.
type Log struct {
	mu  sync.Mutex
	out io.Writer // guarded by mu
}

// Say writes a line of marina-node's own.
func (l *Log) Say(format string, args ...any) {
	l.line("marina-node", fmt.Appendf(nil, format+"\n", args...))
}

func (l *Log) line(name string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.out.Write(append([]byte(name+": "), text...)) // whoever reads it may be gone; the node goes on
}

// Copy passes on the lines of r and closes it.
func (l *Log) Copy(name string, r io.ReadCloser) {
	defer r.Close()
	b := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := b.ReadSlice('\n')
		if len(text) > 0 {
			if text[len(text)-1] != '\n' {
				text = append(text[:len(text):len(text)], '\n')
			}
			l.line(name, text)
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}
