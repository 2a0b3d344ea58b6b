package kernel

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Running a further process in a task is one request, POST ExecPath of the task on the agent's connection: its body is
// a stream of exec frames to the agent, its answer a stream of exec frames back. A frame is one byte of kind, four
// bytes of payload length (big endian), and the payload. The first frame of the body is ExecStart, the last of the
// answer ExecExit.
type ExecKind byte

// The kinds of exec frames. To the agent: ExecStart, ExecStdin, ExecStdinEOF, ExecResize. Back: ExecStdout, ExecStderr,
// ExecExit.
const (
	ExecStart    ExecKind = iota + 1 // JSON of ExecRequest
	ExecStdin                        // bytes
	ExecStdinEOF                     // nothing
	ExecResize                       // JSON of ExecSize
	ExecStdout                       // bytes; with a terminal everything comes here
	ExecStderr                       // bytes
	ExecExit                         // JSON of ExecResult
)

// MaxExecFrame bounds the payload of one exec frame, in bytes.
const MaxExecFrame = 64 << 10

// ExecPath returns the path at which a task's exec is asked for.
func ExecPath(t TaskID) string { return "/agent/v1/tasks/" + string(t) + "/exec" }

// ExecRequest says what to run in a task.
type ExecRequest struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"` // "NAME=value", added to the task's own
	TTY  bool     `json:"tty,omitempty"`
	Size ExecSize `json:"size,omitzero"` // with TTY: the terminal's at the start
}

// ExecSize is a terminal's size in characters.
type ExecSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// ExecResult is the end of a process. Error is set if it could not be run or was cut off; Code is then meaningless.
type ExecResult struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// WriteExecFrame writes one frame, in one call to w.
func WriteExecFrame(w io.Writer, kind ExecKind, payload []byte) error {
	if len(payload) > MaxExecFrame {
		return invalid("exec frame of %d bytes, the limit is %d", len(payload), MaxExecFrame)
	}
	b := make([]byte, 5, 5+len(payload))
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// ReadExecFrame reads one frame. The error is io.EOF only between frames, and errdefs.ErrInvalidArgument for a frame
// that is none. The payload is the caller's.
func ReadExecFrame(r io.Reader) (ExecKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind, n := ExecKind(head[0]), binary.BigEndian.Uint32(head[1:])
	if kind < ExecStart || kind > ExecExit {
		return 0, nil, invalid("exec frame of unknown kind %d", kind)
	}
	if n > MaxExecFrame {
		return 0, nil, invalid("exec frame of %d bytes, the limit is %d", n, MaxExecFrame)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("exec frame cut off: %w", io.ErrUnexpectedEOF)
	}
	return kind, payload, nil
}
