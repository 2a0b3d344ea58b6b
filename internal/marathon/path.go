package marathon

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// MaxAppID is the longest app id in bytes. Task ids are built from app ids (see GroupPrefix) and become names of
// files and control groups, which end at 255 bytes: this leaves room for what is put after them.
const MaxAppID = 128

const segmentPattern = `^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)$`

// segment matches as segmentPattern means it: Marathon matches it whole, which the pattern's own anchors do not say.
var segment = regexp.MustCompile(`^(?:(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*` +
	`([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|\.|\.\.)$`)

var reserved = map[string]bool{"restart": true, "tasks": true, "versions": true, ".": true, "..": true}

// AppID makes an id absolute against a parent group and checks it. The error texts are Marathon's.
func AppID(id, parent string) (string, []string) {
	if len(id) > MaxAppID {
		return "", []string{fmt.Sprintf("must be at most %d characters long, has %d", MaxAppID, len(id))}
	}
	var errs []string
	parts := []string{}
	if !strings.HasPrefix(id, "/") {
		parts = split(parent)
	}
	for _, p := range strings.Split(id, "/") {
		switch {
		case p == "":
		case !segment.MatchString(p):
			errs = append(errs, fmt.Sprintf("must fully match regular expression '%s'", segmentPattern))
		case p == ".":
		case p == "..":
			if len(parts) == 0 {
				errs = append(errs, "must not lead above the root")
				continue
			}
			parts = parts[:len(parts)-1]
		default:
			parts = append(parts, p)
		}
	}
	last := id[strings.LastIndex(id, "/")+1:]
	switch {
	case id == "":
		errs = append(errs, "Path must contain at least one path element")
	case reserved[last]:
		errs = append(errs, "must not end with any of the following reserved keywords: restart, tasks, versions, ., ..")
	case len(parts) == 0 && len(errs) == 0:
		errs = append(errs, "must not be root")
	}
	out := "/" + strings.Join(parts, "/")
	if len(out) > MaxAppID && len(errs) == 0 {
		errs = append(errs, fmt.Sprintf("must be at most %d characters long, has %d", MaxAppID, len(out)))
	}
	return out, errs
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// Parent is the group an app is in: "/prod" for "/prod/web", "/" for "/web".
func Parent(id string) string {
	if i := strings.LastIndex(id, "/"); i > 0 {
		return id[:i]
	}
	return "/"
}

// Under reports whether an id lies below a group.
func Under(id, group string) bool {
	return group == "/" || strings.HasPrefix(id, group+"/")
}

// TopGroup is the top-level group an app is in: "/prod" for "/prod/web/api", "/" for "/web".
func TopGroup(id string) string {
	parts := split(id)
	if len(parts) < 2 {
		return "/"
	}
	return "/" + parts[0]
}

// GroupPrefix begins the ids of an app's instances; a UUID follows.
func GroupPrefix(app string) string { return strings.Join(split(app), "_") + ".instance-" }

// TaskSuffix makes a group id a task id.
const TaskSuffix = "._app.1"

var taskID = regexp.MustCompile(`^(.+)\.((?:instance-|marathon-)[^.]+|[0-9a-f-]{36})(?:\._app|\.[^.]+)?(?:\.\d+)?$`)

// GroupOfTask is the group id inside a task id of any of the forms that Marathon's versions used.
func GroupOfTask(id string) (string, bool) {
	m := taskID.FindStringSubmatch(id)
	if m == nil {
		return "", false
	}
	return m[1] + "." + m[2], true
}

// timestamp is the one form times have on the wire. As text they sort by time, and they name versions.
const timestampForm = "2006-01-02T15:04:05.000Z"

// Timestamp is a time as text; empty for none.
func Timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timestampForm)
}

// ParseTimestamp reads what Timestamp wrote.
func ParseTimestamp(s string) (time.Time, bool) {
	t, err := time.Parse(timestampForm, s)
	return t, err == nil
}
