package output

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli/exit"
)

func printer() (*Printer, *bytes.Buffer) {
	var out bytes.Buffer
	return &Printer{Out: &out, Err: &out, In: strings.NewReader("")}, &out
}

func TestTablesStayTablesWhateverStandsInThem(t *testing.T) {
	p, out := printer()
	p.Table([]string{"ID", "SAYS"}, [][]string{{"/a", "two\nlines\tand a tab"}, {"/longer", ""},
		{"/b\x1b[2J", "ünïcode 世界"}})
	want := "ID       SAYS\n" +
		"/a       two lines and a tab\n" +
		"/longer  -\n" +
		"/b\uFFFD[2J   ünïcode 世界\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestFittedShortensOneColumnAndNoMoreThanNeeded(t *testing.T) {
	for n, want := range map[int]int{10: 10, 70: 70, 71: 70,
		500: 70} { // 80 columns, less "a" with its heading and two spaces
		p, out := printer()
		p.Fitted([]string{"NAME", "B"}, [][]string{{strings.Repeat("x", n), strings.Repeat("y", 8)}}, 0)
		row := strings.Split(out.String(), "\n")[1]
		name, _, _ := strings.Cut(row, " ")
		if got := len([]rune(name)); got != want || len([]rune(row)) > Columns {
			t.Errorf("a name of %d: shown with %d in a row of %d, want %d and at most %d", n, got, len([]rune(row)), want,
				Columns)
		}
		if cut := n > want; cut != strings.HasSuffix(name, "…") {
			t.Errorf("a name of %d is shown as %q: want a mark where it was cut and nowhere else", n, name)
		}
	}
}

func TestFittedLeavesSomethingOfTheFlexibleColumn(t *testing.T) {
	p, out := printer()
	p.Fitted([]string{"NAME", "B"}, [][]string{{"abcdefgh", strings.Repeat("y", 200)}}, 0)
	if !strings.Contains(out.String(), "abc…") {
		t.Errorf("got %q, want four characters of the name at least", out)
	}
}

func TestFieldsWithoutAValueAreLeftOut(t *testing.T) {
	p, out := printer()
	p.Fields("id", "/a", "healthy", "", "state", "gone\x07", "odd")
	if want := "id     /a\nstate  gone\uFFFD\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestRawIndentsJSONAndLeavesTheRestAsItIs(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":[true]}`: "{\n  \"a\": [\n    true\n  ],\n  \"b\": 1\n}\n",
		"not json":           "not json",
		"":                   "",
	} {
		p, out := printer()
		if err := p.Raw([]byte(in)); err != nil || out.String() != want {
			t.Errorf("%q: %q (%v), want %q", in, out, err, want)
		}
	}
	p, _ := printer()
	if err := p.Document(func() {}); err == nil {
		t.Error("a value that JSON cannot have was printed")
	}
}

func TestOpenTakesADashForStandardInput(t *testing.T) {
	p, _ := printer()
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := p.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := p.Open(file + ".none"); !exit.Is(err, exit.BadUsage) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a file that is not there: %v, want an error of usage that names it", err)
	}
	if _, err := p.Open("-"); !exit.Is(err, exit.BadUsage) {
		t.Errorf("a dash without standard input: %v, want an error of usage", err)
	}
	p.In = f
	if got, err := p.Open("-"); err != nil || got != f {
		t.Errorf("a dash: %v (%v), want standard input itself", got, err)
	}
}

func TestWordsForTables(t *testing.T) {
	for got, want := range map[string]string{
		Short("abc", 3): "abc", Short("abcd", 3): "ab…", Short("世界人", 2): "世…",
		Bar(0, 4): "....................", Bar(1, 4): "#####...............", Bar(9, 4): "####################",
		Bar(1, 0) + "0": "....................0", Bar(-1, 4) + "-": "....................-",
		Plural(1, "node"): "1 node", Plural(0, "node"): "0 nodes", Plural(2, "pod"): "2 pods",
		Number(0.5): "0.5", Number(2): "2", Number(1e21): "1e+21",
		MiB(256): "256Mi", MiB(1536): "1.5Gi", MiB(2048): "2Gi",
		Clean("a\x00b\nc\td\x1b"): "a\uFFFDb\nc\td\uFFFD",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAgoKeepsToOneUnit(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 5 * time.Second: "5s", 90 * time.Second: "1m", 59*time.Minute + 50*time.Second: "59m",
		47*time.Hour + 30*time.Minute: "47h", 73 * time.Hour: "3d",
	} {
		if got := Ago(time.Now().Add(-d)); got != want {
			t.Errorf("%v ago is %q, want %q", d, got, want)
		}
	}
	if got := Ago(time.Time{}); got != "" {
		t.Errorf("no time is %q, want nothing", got)
	}
}

func TestProgressIsALineForEachChangeWhereThereIsNoTerminal(t *testing.T) {
	p, out := printer()
	line := p.Progress()
	for _, s := range []string{"1 of 2", "1 of 2", "2 of 2\x1b[2J"} {
		line.Show("%s", s)
	}
	line.Done()
	line.Show("again")
	if want := "1 of 2\n2 of 2\uFFFD[2J\nagain\n"; out.String() != want || line.Drawn() {
		t.Errorf("got %q, drawn %v, want %q and not drawn", out, line.Drawn(), want)
	}
}

func TestNothingIsShownWithJSONOrQuiet(t *testing.T) {
	for _, set := range []func(*Printer){func(p *Printer) { p.JSON = true }, func(p *Printer) { p.Quiet = true }} {
		p, out := printer()
		set(p)
		p.Progress().Show("working")
		b := p.Block()
		b.Line("a line")
		if out.String() != "" || b.Drawn() {
			t.Errorf("with %+v: %q, want nothing", p, out)
		}
	}
}

func TestWithoutATerminalNobodyIsAsked(t *testing.T) {
	p, out := printer()
	for what, err := range map[string]error{"confirm": p.Confirm("Remove it?"),
		"name": p.ConfirmName("a", "it takes all", "Delete it?")} {
		if !exit.Is(err, exit.BadUsage) || !strings.Contains(err.Error(), "obody is there to ask") {
			t.Errorf("%s: %v, want an error of usage that says so", what, err)
		}
	}
	if out.String() != "" {
		t.Errorf("asked %q, want nothing", out)
	}
}
