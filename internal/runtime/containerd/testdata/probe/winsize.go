package main

import (
	"syscall"
	"unsafe"
)

func winsize() (cols, rows uint16, err error) {
	var ws struct{ rows, cols, x, y uint16 }
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&ws))); e != 0 {
		err = e
	}
	return ws.cols, ws.rows, err
}
