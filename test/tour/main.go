// Command tour runs the README's own code blocks, word by word: those marked sh under the heading "A tour in ten
// minutes", in order, in one shell, each shown before its output. The first one that fails ends it.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

const heading = "## A tour in ten minutes"

// blockLimit bounds one block.
const blockLimit = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tour:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: tour README.md")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	blocks := blocks(string(b))
	if len(blocks) == 0 {
		return fmt.Errorf("%s has no blocks under %q", args[0], heading)
	}
	begin := time.Now()
	exports := "" // of earlier blocks: each block is a shell of its own
	for i, block := range blocks {
		fmt.Printf("\n--- %d of %d\n", i+1, len(blocks))
		for line := range strings.Lines(block) {
			fmt.Print("$ ", line)
		}
		if err := one(ctx, exports+block); err != nil {
			return fmt.Errorf("block %d failed: %w", i+1, err)
		}
		for line := range strings.Lines(block) {
			if strings.HasPrefix(line, "export ") {
				exports += line
			}
		}
	}
	fmt.Printf("\n%d blocks passed in %.0f s\n", len(blocks), time.Since(begin).Seconds())
	return nil
}

func one(ctx context.Context, script string) error {
	ctx, cancel := context.WithTimeout(ctx, blockLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	os.Stdout.Write(out.Bytes())
	return err
}

// blocks returns the sh blocks of the tour's section.
func blocks(text string) []string {
	_, section, ok := strings.Cut(text, heading)
	if !ok {
		return nil
	}
	if i := strings.Index(section, "\n## "); i >= 0 {
		section = section[:i]
	}
	var out []string
	for {
		_, rest, ok := strings.Cut(section, "```sh\n")
		if !ok {
			return out
		}
		block, after, ok := strings.Cut(rest, "```")
		if !ok {
			return out
		}
		out, section = append(out, block), after
	}
}
