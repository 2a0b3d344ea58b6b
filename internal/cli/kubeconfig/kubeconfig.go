package kubeconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/durable"
)

// ContextOf is the name under which a cluster stands in a kubeconfig: of its context, its cluster and its user.
func ContextOf(cluster string) string { return "marina-" + cluster }

// files lists the files that kubectl reads: the first is the one that is added to.
func files() ([]string, error) {
	var all []string
	for _, f := range filepath.SplitList(os.Getenv("KUBECONFIG")) {
		if f != "" && !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, &exit.Error{Code: exit.Failed, Message: "there is no home directory for a kubeconfig",
			Next: "--output FILE, or KUBECONFIG"}
	}
	return []string{filepath.Join(home, ".kube", "config")}, nil
}

// document is a file of clusters, users and contexts.
type document struct {
	doc  *yaml.Node // the document
	root *yaml.Node // its mapping
}

// parse reads a kubeconfig; an empty one is good.
func parse(b []byte) (*document, error) {
	doc := &yaml.Node{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if dec.Decode(&yaml.Node{}) == nil {
		return nil, errors.New("it has several documents")
	}
	if doc.Kind == 0 || doc.Content[0].Tag == "!!null" {
		head := doc.HeadComment
		if err := yaml.Unmarshal([]byte("apiVersion: v1\nkind: Config\n"), doc); err != nil {
			return nil, err
		}
		doc.HeadComment = head
	}
	k := &document{doc: doc, root: doc.Content[0]}
	if k.root.Kind != yaml.MappingNode {
		return nil, errors.New("it is not a mapping")
	}
	for _, list := range []string{"clusters", "users", "contexts"} {
		if n := value(k.root, list); n != nil && n.Kind != yaml.SequenceNode && n.Tag != "!!null" {
			return nil, fmt.Errorf("its %q are not a list", list)
		}
	}
	return k, nil
}

// bytes writes it.
func (k *document) bytes() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	enc.CompactSeqIndent() // as kubectl writes it
	err := enc.Encode(k.doc)
	return b.Bytes(), errors.Join(err, enc.Close())
}

// value returns the value of a mapping's key, or nil.
func value(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// text is a mapping's string under a key, or "".
func text(m *yaml.Node, key string) string {
	if n := value(m, key); n != nil && n.Tag != "!!null" {
		return n.Value
	}
	return ""
}

// set puts a value under a key of a mapping, at its end if it is new.
func set(m *yaml.Node, key string, to *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content[i+1] = to
			return
		}
	}
	m.Content = append(m.Content, scalar(key), to)
}

func scalar(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

// entry is the element of a list that has a name, or nil.
func (k *document) entry(list, name string) *yaml.Node {
	if n := value(k.root, list); n != nil {
		for _, e := range n.Content {
			if text(e, "name") == name {
				return e
			}
		}
	}
	return nil
}

// replace puts an element into a list in place of those of its name.
func (k *document) replace(list string, e *yaml.Node) {
	n := value(k.root, list)
	if n == nil || n.Kind != yaml.SequenceNode {
		n = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		set(k.root, list, n)
	}
	if len(n.Content) == 0 {
		n.Style = 0 // it was written as []
	}
	at := slices.IndexFunc(n.Content, func(old *yaml.Node) bool { return text(old, "name") == text(e, "name") })
	if at < 0 {
		n.Content = append(n.Content, e)
		return
	}
	e.HeadComment, e.LineComment, e.FootComment = n.Content[at].HeadComment, n.Content[at].LineComment,
		n.Content[at].FootComment
	n.Content[at] = e
}

// add takes another's only cluster, user and context in under one name.
func (k *document) add(other *document, name string) error {
	for list, what := range map[string]string{"clusters": "cluster", "users": "user", "contexts": "context"} {
		all := value(other.root, list)
		if all == nil || len(all.Content) != 1 || value(all.Content[0], what) == nil {
			return fmt.Errorf("the datacenter's kubeconfig has not exactly one %s", what)
		}
		e := all.Content[0]
		set(e, "name", scalar(name))
		if list == "contexts" {
			c := value(e, "context")
			set(c, "cluster", scalar(name))
			set(c, "user", scalar(name))
			if space := text(value(k.entry(list, name), "context"), "namespace"); space != "" && text(c, "namespace") == "" {
				set(c, "namespace", scalar(space)) // its user chose it
			}
		}
		k.replace(list, e)
	}
	return nil
}

// remove takes a context, its cluster and its user out and reports whether anything was there. With a server it does so
// only if the cluster is at that address: another datacenter may have one of the same name.
func (k *document) remove(name, server string) bool {
	if server != "" {
		if e := k.entry("clusters", name); e != nil && text(value(e, "cluster"), "server") != server {
			return false
		}
	}
	found := false
	for _, list := range []string{"clusters", "users", "contexts"} {
		if n := value(k.root, list); n != nil {
			n.Content = slices.DeleteFunc(n.Content, func(e *yaml.Node) bool {
				mine := text(e, "name") == name
				found = found || mine
				return mine
			})
			if len(n.Content) == 0 && n.Kind == yaml.SequenceNode {
				n.Style = yaml.FlowStyle
			}
		}
	}
	if found && text(k.root, "current-context") == name {
		set(k.root, "current-context", scalar(""))
	}
	return found
}

// lockLimit bounds the wait for the lock of a kubeconfig; nobody holds it for more than an instant.
const lockLimit = 3 * time.Second

// edit changes a file under kubectl's lock. If change reports that there is nothing to do, the file is not written.
func edit(ctx context.Context, file string, change func(*document) (bool, error)) error {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real // the link stays
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	unlock, err := lock(ctx, file)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	k, err := parse(b)
	if err != nil {
		return &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("%s is not a kubeconfig, and was left as it is: %v", file,
			err),
			Next: "repair it, or --output another file"}
	}
	changed, err := change(k)
	if err != nil || !changed {
		return err
	}
	if b, err = k.bytes(); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return ReplaceFile(file, b)
}

// lock takes the lock that kubectl takes: a file that must not be there.
func lock(ctx context.Context, file string) (unlock func(), err error) {
	lock := file + ".lock"
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	for {
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() { os.Remove(lock) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("kubeconfig: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, &exit.Error{Code: exit.Conflict, Message: "another program is changing " + file,
				Next: "again; if none does, rm " + lock}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ReplaceFile writes a whole file or nothing of it, for its owner only. A file that somebody else owns stays theirs.
func ReplaceFile(file string, b []byte) error {
	if err := replace(file, b); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}

func replace(file string, b []byte) error {
	f, err := durable.Create(file, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if old, err := os.Stat(file); err == nil {
		if s, ok := old.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
			if err := f.Chown(int(s.Uid), int(s.Gid)); err != nil {
				return err
			}
		}
	}
	return f.Commit()
}

// Merge puts a cluster's kubeconfig into the user's and reports which file that is and whether it is the current
// context. It becomes that if use says so or there is none.
func Merge(ctx context.Context, b []byte, name string, use bool) (file string, current bool, err error) {
	all, err := files()
	if err != nil {
		return "", false, err
	}
	chosen := currentContext(all)
	other, err := parse(b)
	if err != nil {
		return "", false, fmt.Errorf("the datacenter's kubeconfig: %w", err)
	}
	return all[0], use || chosen == "" || chosen == name, edit(ctx, all[0], func(k *document) (bool, error) {
		if err := k.add(other, name); err != nil {
			return false, err
		}
		if use || chosen == "" {
			set(k.root, "current-context", scalar(name))
		}
		return true, nil
	})
}

// currentContext is the one that kubectl uses: that of the first file that names one.
func currentContext(files []string) string {
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if k, err := parse(b); err == nil && text(k.root, "current-context") != "" {
			return text(k.root, "current-context")
		}
	}
	return ""
}

// Remove takes a cluster out of every kubeconfig of the user and returns the files that had it. See document.remove for
// the server.
func Remove(name, server string) ([]string, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	var had []string
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // most files there might be are not there
		}
		if k, err := parse(b); err != nil || !k.remove(name, server) {
			continue // nothing of ours can be told from it: it is not even locked
		}
		err = edit(context.Background(), f, func(k *document) (bool, error) { return k.remove(name, server), nil })
		if err != nil {
			return had, err
		}
		had = append(had, f)
	}
	return had, nil
}
