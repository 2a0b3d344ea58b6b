package kernel

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// amounts are what machines have and requests ask for, absurd ones too.
var amounts = rapid.Custom(func(t *rapid.T) Resources {
	one := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64Range(-1<<40, 1<<40),
		rapid.Int64Range(math.MinInt64+1, math.MaxInt64))
	return Resources{MilliCPU: one.Draw(t, "cpus"), Mem: one.Draw(t, "mem"), Disk: one.Draw(t, "disk"),
		GPUs: one.Draw(t, "gpus")}
})

// within is a sum or product as an int64, the last one there is if it is more.
func within(n *big.Int) int64 {
	switch {
	case n.IsInt64():
		return n.Int64()
	case n.Sign() > 0:
		return math.MaxInt64
	}
	return math.MinInt64
}

func TestSumsOfResourcesNeverWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, n := amounts.Draw(t, "a"), amounts.Draw(t, "b"), rapid.Int64().Draw(t, "times")
		sum, less, times := a.Add(b).Parts(), a.Sub(b).Parts(), a.Times(n).Parts()
		most, least, turned := a.Most(b).Parts(), a.Least(b).Parts(), a.Neg().Parts()
		for c, x := range a.Parts() {
			y := b.Parts()[c]
			bx, by := big.NewInt(x), big.NewInt(y)
			for what, pair := range map[string][2]int64{
				"plus":  {sum[c], within(new(big.Int).Add(bx, by))},
				"minus": {less[c], within(new(big.Int).Sub(bx, by))},
				"times": {times[c], within(new(big.Int).Mul(bx, big.NewInt(n)))},
				"most":  {most[c], max(x, y)}, "least": {least[c], min(x, y)}, "turned": {turned[c], -x},
			} {
				if pair[0] != pair[1] {
					t.Fatalf("%s: %d %s %d (or %d times): got %d, want %d", Components[c], x, what, y, n, pair[0], pair[1])
				}
			}
		}
	})
}

func TestWhatLacksIsWhatDoesNotFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		asked, free := amounts.Draw(t, "asked"), amounts.Draw(t, "free")
		var want []string
		for c, n := range asked.Parts() {
			if n > free.Parts()[c] {
				want = append(want, Components[c])
			}
		}
		if got := asked.Lacking(free); !slices.Equal(got, want) || asked.Fits(free) != (want == nil) {
			t.Fatalf("%v of %v: lacks %v, fits %v, want %v", asked, free, got, asked.Fits(free), want)
		}
		if asked.Valid() != (min(asked.MilliCPU, asked.Mem, asked.Disk, asked.GPUs) >= 0) {
			t.Fatalf("%v is valid: %v", asked, asked.Valid())
		}
	})
}

func TestResourcesInWords(t *testing.T) {
	for _, c := range []struct {
		r    Resources
		want string
	}{
		{Resources{}, "nothing"},
		{Resources{MilliCPU: 500, Mem: 128 * MiB}, "0.5 cpus, 128 MiB mem"},
		{Resources{Mem: 1536 * MiB, Disk: 20 * GiB, GPUs: 2}, "1.5 GiB mem, 20 GiB disk, 2 gpus"},
		{Resources{MilliCPU: -250, Mem: -2 * GiB, Disk: 1000}, "-0.25 cpus, -2 GiB mem, 1000 B disk"},
	} {
		if got := c.r.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		if c.r.IsZero() != (c.want == "nothing") {
			t.Errorf("%s is nothing: %v", c.want, c.r.IsZero())
		}
	}
	r := Resources{MilliCPU: 1250, Mem: 2 * GiB, Disk: 512 * MiB, GPUs: 3}
	for name, want := range map[string]string{"cpus": "1.25", "mem": "2 GiB", "disk": "512 MiB", "gpus": "3"} {
		if got := r.Amount(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestAQuotaBoundsWhatItNamesAndBlamesOnlyWhoAsks(t *testing.T) {
	q := Quota{Limit: Resources{MilliCPU: 2000, Mem: Unlimited, Disk: 10 * GiB, GPUs: 0}}
	for what, c := range map[string]struct {
		used, more   Resources
		over, within []string
	}{
		"nothing":             {Resources{}, Resources{}, nil, nil},
		"all of it":           {Resources{MilliCPU: 1500}, Resources{MilliCPU: 500, Mem: 1 << 60, Disk: 10 * GiB}, nil, nil},
		"a little more":       {Resources{MilliCPU: 1500}, Resources{MilliCPU: 501}, nil, []string{"cpus"}},
		"what is not allowed": {Resources{}, Resources{GPUs: 1}, nil, []string{"gpus"}},
		"over, but not in what is asked for": {Resources{MilliCPU: 9000, GPUs: 1}, Resources{Disk: GiB},
			[]string{"cpus", "gpus"},
			nil},
		"over, and asks for more": {Resources{MilliCPU: 9000, Disk: 11 * GiB}, Resources{MilliCPU: 1, Disk: 1},
			[]string{"cpus", "disk"},
			[]string{"cpus", "disk"}},
	} {
		if got := q.Over(c.used); !slices.Equal(got, c.over) {
			t.Errorf("%s: over in %v, want %v", what, got, c.over)
		}
		if got := q.Within(c.used, c.more); !slices.Equal(got, c.within) {
			t.Errorf("%s: %v more is too much in %v, want %v", what, c.more, got, c.within)
		}
	}
	if got := (Quota{Limit: NoLimit}).Within(Resources{}, Resources{1 << 60, 1 << 60, 1 << 60, 1 << 60}); got != nil {
		t.Errorf("no limit bounds %v", got)
	}
}

func TestRolesAreATree(t *testing.T) {
	for _, c := range []struct{ role, parent, tenant string }{
		{"", "", ""}, {"/", "", "/"}, {"/prod", "/", "/prod"}, {"/prod/web", "/prod", "/prod"},
		{"/prod/web/x", "/prod/web", "/prod"},
	} {
		if got := ParentRole(c.role); got != c.parent {
			t.Errorf("parent of %q: got %q, want %q", c.role, got, c.parent)
		}
		if got := Tenant(c.role); got != c.tenant {
			t.Errorf("tenant of %q: got %q, want %q", c.role, got, c.tenant)
		}
	}
	for role := "/a/b/c/d"; role != ""; role = ParentRole(role) {
		if !Within("/a/b/c/d", role) {
			t.Errorf("/a/b/c/d is not within %s", role)
		}
	}
	for _, other := range []string{"/a/b/c/d/e", "/a/bc", "/b"} {
		if Within("/a/b/c/d", other) {
			t.Errorf("/a/b/c/d is within %s", other)
		}
	}
}

func TestARefusalIsOneSentence(t *testing.T) {
	for want, r := range map[string]Refusal{
		"no machine has joined yet":          {},
		"role /prod: 2 cpus over its limit":  {Agents: 3, Quota: "role /prod: 2 cpus over its limit"},
		"0 of 3 machines fit: 3 unreachable": {Agents: 3, Reasons: []Rejected{{Filter: "unreachable", Agents: 3}}},
		"0 of 3 machines fit: 2 lack mem (asks 64 GiB, the most free is 20 GiB), 1 fail ports": {Agents: 3,
			Reasons: []Rejected{
				{Filter: "mem", Agents: 2, Detail: "asks 64 GiB, the most free is 20 GiB"}, {Filter: "ports", Agents: 1}}},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
