package kubeconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/cli/exit"
)

// given is what a datacenter gives for a cluster.
func given(name, server string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster: {server: %[2]q}
users:
- name: admin
  user: {token: t}
contexts:
- name: x
  context: {cluster: %[1]s, user: admin}
current-context: x
`, name, server)
}

// home is a home directory with a kubeconfig of this text; "" is none.
func home(t *testing.T, text string) (file string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("KUBECONFIG", "")
	file = filepath.Join(dir, ".kube", "config")
	if text != "" {
		put(t, file, text)
	}
	return file
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, file, want string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if d := cmp.Diff(want, string(b)); err != nil || d != "" {
		t.Errorf("%s (%v), want (-) and got (+):\n%s", file, err, d)
	}
}

const theirs = `# mine
apiVersion: v1
kind: Config
clusters:
- name: work # by hand
  cluster: {server: 'https://work'}
users: []
contexts:
- name: work
  context: {cluster: work, user: me}
current-context: work
`

func TestWhatIsTakenInGoesAgainAndLeavesTheRest(t *testing.T) {
	file := home(t, theirs)
	got, current, err := Merge(t.Context(), given("demo", "https://demo"), ContextOf("demo"), false)
	if err != nil || got != file || current {
		t.Fatalf("merged into %s, current %v, %v", got, current, err)
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(b), "# by hand") || !strings.Contains(string(b), "cluster: marina-demo") ||
		!strings.Contains(string(b), "current-context: work") {
		t.Errorf("%v, merged:\n%s", err, b)
	}
	if _, current, err := Merge(t.Context(), given("demo", "https://again"), ContextOf("demo"), true); err != nil ||
		!current {
		t.Errorf("with use: current %v, %v", current, err)
	}
	if b, _ := os.ReadFile(file); strings.Count(string(b), "name: marina-demo") != 3 ||
		strings.Contains(string(b), "https://demo") ||
		!strings.Contains(string(b), "current-context: marina-demo") {
		t.Errorf("merged again:\n%s\nwant one of each, the newer", b)
	}
	if had, err := Remove(ContextOf("demo"), "https://other"); err != nil || len(had) != 0 {
		t.Errorf("removed one at another address: %v, %v", had, err)
	}
	had, err := Remove(ContextOf("demo"), "https://again")
	if err != nil || len(had) != 1 || had[0] != file {
		t.Errorf("removed from %v, %v", had, err)
	}
	has(t, file, strings.Replace(theirs, "current-context: work", `current-context: ""`, 1))
	if had, err := Remove(ContextOf("demo"), ""); err != nil || len(had) != 0 {
		t.Errorf("removed once more: %v, %v", had, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want it for its owner only: there are keys in it", fi.Mode(), err)
	}
}

func TestWhatIsNoKubeconfigIsNotTouched(t *testing.T) {
	for what, text := range map[string]string{"two documents": "a: 1\n---\nb: 2\n", "a list": "- a\n", "no YAML": "a: [",
		"a text":                   "hello\n",
		"clusters of another kind": "clusters: {a: 1}\n", "contexts of another kind": "contexts: 7\n"} {
		file := home(t, text)
		_, _, err := Merge(t.Context(), given("demo", "https://demo"), "marina-demo", false)
		if !exit.Is(err, exit.Failed) || !strings.Contains(err.Error(), file+" is not a kubeconfig, and was left as it is") {
			t.Errorf("%s: got %v", what, err)
		}
		has(t, file, text)
		if had, err := Remove("marina-demo", ""); err != nil || len(had) != 0 {
			t.Errorf("%s: removed from %v, %v", what, had, err)
		}
		if _, err := os.Stat(file + ".lock"); err == nil {
			t.Errorf("%s: the lock was left", what)
		}
	}
	for what, text := range map[string]string{"nothing": "{}", "two clusters": strings.Replace(string(given("a", "b")),
		"- name: a", "- name: z\n- name: a", 1), "no YAML": "["} {
		file := home(t, theirs)
		if _, _, err := Merge(t.Context(), []byte(text), "marina-demo", false); err == nil ||
			!strings.Contains(err.Error(), "the datacenter's kubeconfig") {
			t.Errorf("a datacenter gives %s: got %v", what, err)
		}
		has(t, file, theirs)
	}
}

func TestAnEmptyFileIsAKubeconfig(t *testing.T) {
	for what, text := range map[string]string{"none": "", "a blank one": "\n", "a comment": "# mine\n", "null": "null\n",
		"empty lists": "clusters: []\nusers: null\n"} {
		file := home(t, text)
		got, current, err := Merge(t.Context(), given("demo", "https://demo"), "marina-demo", false)
		b, rerr := os.ReadFile(file)
		if err != nil || rerr != nil || got != file || !current || strings.Count(string(b), "name: marina-demo") != 3 ||
			!strings.Contains(string(b), "current-context: marina-demo") {
			t.Errorf("%s: %s, current %v, %v, %v:\n%s", what, got, current, err, rerr, b)
		}
	}
}

func TestTheFirstFileIsWrittenAndAllAreRead(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	put(t, second, theirs)
	t.Setenv("KUBECONFIG", strings.Join([]string{first, "", second, first}, string(filepath.ListSeparator)))
	if file, current, err := Merge(t.Context(), given("demo", "https://demo"), "marina-demo", false); err != nil ||
		file != first || current {
		t.Errorf("merged into %s, current %v, %v, want the first, and the context of the second to stay", file, current, err)
	}
	has(t, second, theirs)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(first, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", link)
	if had, err := Remove("marina-demo", "https://demo"); err != nil || len(had) != 1 || had[0] != link {
		t.Errorf("removed from %v, %v", had, err)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", fi.Mode(), err)
	}
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", "")
	if _, _, err := Merge(t.Context(), given("demo", "x"), "marina-demo", false); !exit.Is(err, exit.Failed) ||
		!strings.Contains(err.Error(), "no home directory") {
		t.Errorf("nowhere to write: %v", err)
	}
}

// kubectl takes the same lock: a file of the name with .lock, which must not be there.
func TestALockThatIsHeldIsWaitedForAndNotBroken(t *testing.T) {
	file := home(t, theirs)
	synctest.Test(t, func(t *testing.T) { lockedOut(t, file) })
}

func lockedOut(t *testing.T, file string) {
	put(t, file+".lock", "")
	freed := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { freed <- os.Remove(file + ".lock") })
	if _, _, err := Merge(t.Context(), given("demo", "https://demo"), "marina-demo", false); err != nil {
		t.Errorf("a lock that is given back: %v", err)
	}
	if err := <-freed; err != nil {
		t.Errorf("the lock was broken: %v", err)
	}
	put(t, file+".lock", "")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = Remove("marina-demo", "")
	if e, ok := err.(*exit.Error); !ok || e.Code != exit.Conflict || !strings.Contains(e.Next, "rm "+file+".lock") ||
		time.Since(began) < lockLimit {
		t.Errorf("a lock that stays: %#v after %v", err, time.Since(began))
	}
	has(t, file, string(before))
}
