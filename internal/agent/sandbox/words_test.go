package sandbox

import "testing"

func TestLastWordsAreThoseThatTellWhyAProgramEnded(t *testing.T) {
	for _, c := range []struct{ tail, want string }{
		{"", ""},
		{"one\ntwo\n\n", "two"},
		{`{"level":"warn","msg":"slow"}
{"level":"fatal","msg":"failed to save","error":"write wal: no space left on device","stacktrace":"main"}
`, "failed to save: write wal: no space left on device"},
		{`{"level":"panic","msg":"failed to open database","path":"/etcd/db","error":"invalid database"}
panic: failed to open database

goroutine 1 [running]:
main.main()
`, "failed to open database /etcd/db: invalid database"},
		{"I1126 watching\ncontrol-plane: etcd: wal: crc mismatch\nW1126 stopping\n", "control-plane: etcd: wal: crc mismatch"},
	} {
		if got := wordsOf(c.tail); got != c.want {
			t.Errorf("of %q: got %q, want %q", c.tail, got, c.want)
		}
	}
}
