package client

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/marinaos/marina/internal/cli/exit"
)

// Unmarshal reads an answer that was called for.
func Unmarshal(b []byte, out any) error {
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the answer is not what this version expects: %w", err)
	}
	return nil
}

// maxRefusal bounds what is read of an answer that is an error.
const maxRefusal = 64 << 10

// Refused is the error that an answer is, and closes its body.
func Refused(resp *http.Response) error {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	return AnswerError(resp.StatusCode, b)
}

// AnswerError turns an API's error body into one sentence and an exit code.
func AnswerError(status int, body []byte) error {
	var m struct {
		Message     string          `json:"message"`
		Description string          `json:"description"`
		Details     json.RawMessage `json:"details"`
		Deployments []struct {
			ID string `json:"id"`
		} `json:"deployments"`
	}
	e := &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("the datacenter answered %d", status)}
	if json.Unmarshal(body, &m) == nil {
		e.Message = cmp.Or(m.Message, m.Description, e.Message) + details(m.Details)
	}
	switch status {
	case http.StatusNotFound:
		e.Code = exit.NotFound
	case http.StatusConflict:
		e.Code = exit.Conflict
		if len(m.Deployments) > 0 {
			e.Next = "marina deployment follow " + m.Deployments[0].ID + ", or --force"
		}
	case http.StatusUnauthorized:
		e.Code, e.Next = exit.Denied, "marina login URL --token TOKEN"
	case http.StatusForbidden:
		e.Code = exit.Denied
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		e.Code, e.Next = exit.Unreachable, "again in a moment; marina status tells what is not well"
	}
	return e
}

// details writes Marathon's list of paths and errors: ": /cpus: error.min".
func details(raw json.RawMessage) string {
	var list []struct {
		Path   string   `json:"path"`
		Errors []string `json:"errors"`
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return ": " + text
	}
	if json.Unmarshal(raw, &list) != nil {
		return ""
	}
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, "\n  %s: %s", d.Path, strings.Join(d.Errors, "; "))
	}
	return b.String()
}
