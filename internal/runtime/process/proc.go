package process

import (
	"syscall"

	"github.com/marinaos/marina/internal/machine"
)

// stat reads a process; one that has ended, reaped or not, is an error.
func stat(pid int) (machine.Process, error) {
	p, err := machine.ReadProcess(pid)
	if err == nil && p.Zombie {
		err = syscall.ESRCH
	}
	return p, err
}

// session lists the processes of a session that have not ended.
func session(leader int) ([]int, error) {
	pids, err := machine.PIDs()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, pid := range pids {
		if p, err := stat(pid); err == nil && p.Session == leader {
			out = append(out, pid)
		}
	}
	return out, nil
}
