package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/containerd/spec"
)

// newUserNetNS makes a user namespace and a network namespace that belongs to it, as the network does for nodes.
func newUserNetNS(t testing.TB, ids kernel.IDRange) (netns string) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.First), Size: int(ids.Count)}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: m, GidMappings: m, GidMappingsEnableSetgroups: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("user namespace: %v", err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	netns = filepath.Join(t.TempDir(), "netns")
	for ns, at := range map[string]string{"user": kernel.UserNamespace(netns), "net": netns} {
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/%s", cmd.Process.Pid, ns), at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount namespace: %v", err)
			}
		})
	}
	return netns
}

// node is a container of class node, with a volume at /var.
func (p *place) node(shell string) (c runtime.Container, volume string) {
	p.t.Helper()
	ids := kernel.IDRange{First: p.cfg.IDBase + 7*spec.RangeSize, Count: spec.RangeSize}
	c = p.container()
	c.Image, c.Argv, c.Shell = "", nil, shell
	c.Class, c.IDs, c.NetNS = kernel.ClassNode, &ids, newUserNetNS(p.t, ids)
	c.UserNS, c.Hostname, c.MemLimit = kernel.UserNamespace(c.NetNS), "node-1", 256<<20
	dir := p.t.TempDir()
	volume = filepath.Join(dir, "var")
	if err := p.MountVolume(p.t.Context(), volume+".img", volume, 256<<20); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := p.Unmount(p.t.Context(), volume); err != nil {
			p.t.Error(err)
		}
	})
	meminfo := filepath.Join(dir, "meminfo")
	if err := os.WriteFile(meminfo, []byte("MemTotal:         262144 kB\n"), 0o644); err != nil {
		p.t.Fatal(err)
	}
	c.Binds = append(c.Binds, runtime.Bind{Source: volume, Target: "/var"}, runtime.Bind{Source: meminfo, Target: "/proc/meminfo", ReadOnly: true},
		runtime.Bind{Source: p.cfg.Bin, Target: "/opt/marina/runtime", ReadOnly: true})
	c.Binds = append(c.Binds, p.nodeFiles(dir, int(ids.First))...)
	return c, volume
}

// nodeFiles is what agents give to a node beside its volume: files in memory, and its size in a directory.
func (p *place) nodeFiles(dir string, owner int) []runtime.Bind {
	p.t.Helper()
	at := filepath.Join(dir, "files")
	if err := p.MountMemory(p.t.Context(), at, 1<<20, uint32(owner)); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := p.Unmount(p.t.Context(), at); err != nil {
			p.t.Error(err)
		}
	})
	for _, name := range []string{"node.json", "pki/ca.crt", "pki/ca.new"} {
		f := filepath.Join(at, name)
		err := os.MkdirAll(filepath.Dir(f), 0o700)
		if err == nil {
			err = os.WriteFile(f, []byte(name), 0o600)
		}
		if err == nil {
			err = errors.Join(os.Chown(filepath.Dir(f), owner, owner), os.Chown(f, owner, owner))
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "size"), 0o755); err != nil {
		p.t.Fatal(err)
	}
	for name, content := range map[string]string{"size/size.json": "{}", "machine-id": "0123456789abcdef0123456789abcdef"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	return []runtime.Bind{
		{Source: filepath.Join(dir, "size"), Target: kernel.NodeTarget, ReadOnly: true},
		{Source: filepath.Join(dir, "machine-id"), Target: "/etc/machine-id", ReadOnly: true},
		{Source: filepath.Join(at, "node.json"), Target: "/etc/kubernetes/node.json", ReadOnly: true, Raw: true},
		{Source: filepath.Join(at, "pki"), Target: "/etc/kubernetes/pki", ReadOnly: true, Raw: true},
	}
}

// nested writes the bundle of a container for a runc inside of a node: the machine's programs again, with a memory
// limit.
func nested(t *testing.T, volume, say string) {
	t.Helper()
	root := filepath.Join(volume, "c", "rootfs")
	for _, d := range []string{"usr", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(at, kind, from string, options ...string) map[string]any {
		return map[string]any{"destination": at, "type": kind, "source": from, "options": options}
	}
	spec := map[string]any{
		"ociVersion": "1.2.0", "root": map[string]any{"path": "rootfs"}, "hostname": "pod",
		"process": map[string]any{"args": []string{"/bin/sh", "-c", say}, "cwd": "/", "env": []string{"PATH=/bin:/sbin"}, "user": map[string]any{"uid": 0, "gid": 0}},
		"mounts": []any{mount("/proc", "proc", "proc"), mount("/usr", "bind", "/usr", "rbind", "ro"), mount("/dev", "tmpfs", "tmpfs"),
			mount("/sys", "sysfs", "sysfs", "ro"), mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro")},
		"linux": map[string]any{
			"cgroupsPath": "/pods/one",
			"resources":   map[string]any{"memory": map[string]any{"limit": 32 << 20}, "pids": map[string]any{"limit": 64}},
			"namespaces": []any{map[string]any{"type": "pid"}, map[string]any{"type": "mount"}, map[string]any{"type": "ipc"},
				map[string]any{"type": "uts"}, map[string]any{"type": "network"}, map[string]any{"type": "cgroup"}},
		},
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(volume, "c", "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// inNode says "ok NAME" for what must work, "no NAME" for what must be refused, and what happened where it is not so.
const inNode = `
can() { n=$1; shift; if o=$(eval "$@" 2>&1); then echo "ok $n"; else echo "FAILED $n: $o"; fi; }
cannot() { n=$1; shift; if o=$(eval "$@" 2>&1); then echo "ALLOWED $n: $o"; else echo "no $n"; fi; }
echo "uid $(id -u) host $(hostname) $(head -1 /proc/meminfo) $(grep NoNewPrivs /proc/self/status) $(grep Seccomp: /proc/self/status) $(grep CapEff /proc/self/status)"
grep -v ':/$' /proc/self/cgroup | sed 's/^/OUTSIDE /'
can nft 'nft add table inet t && nft list tables | grep -q "inet t"'
can bridge 'ip link add br0 type bridge && ip link set lo up && ip link set br0 up'
can veth 'ip link add v0 type veth peer name v1'
can forward 'echo 1 > /proc/sys/net/ipv4/ip_forward'
can tmpfs 'mkdir -p /var/t && mount -t tmpfs tmpfs /var/t'
can overlay 'mkdir -p /var/o/l /var/o/u /var/o/w /var/o/m && mount -t overlay overlay -o lowerdir=/var/o/l,upperdir=/var/o/u,workdir=/var/o/w,userxattr /var/o/m && touch /var/o/m/x && chown 1000:1000 /var/o/m/x'
can var 'touch /var/x && chown 1234:1234 /var/x'
can memory-dirs 'touch /run/x /tmp/x /etc/cni/x'
can shared 'grep " / .* shared:" /proc/self/mountinfo || grep " /var .*shared:" /proc/self/mountinfo'
for d in /sys/fs/cgroup/*/; do [ -L ${d%/} ] || can "group-$(basename $d)" "mkdir $d/x"; done
if [ -d /sys/fs/cgroup/memory ]; then
	can limit 'echo 33554432 > /sys/fs/cgroup/memory/x/memory.limit_in_bytes'
	can cpuset 'cat /sys/fs/cgroup/cpuset/cpuset.cpus | grep -q .'
	cannot raise-memory 'echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes'
	cannot raise-pids 'echo max > /sys/fs/cgroup/pids/pids.max'
	can own-cgroup2 'mkdir /var/g && mount -t cgroup2 none /var/g && mkdir /var/g/sub && ! ls /var/g | grep -q marina'
	cannot devices 'echo a > /sys/fs/cgroup/devices/devices.allow'
else
	can limit 'mkdir -p /sys/fs/cgroup/x'
	cannot raise-memory 'echo max > /sys/fs/cgroup/memory.max'
fi
can files '[ "$(cat /etc/kubernetes/node.json /etc/kubernetes/pki/ca.crt /run/marina/node/size.json)" = "node.jsonpki/ca.crt{}" ]'
can files-owner '[ "$(stat -c %u:%a /etc/kubernetes/node.json /etc/kubernetes/pki | tr "\n" " ")" = "0:600 0:700 " ]'
cannot files-write 'echo x > /etc/kubernetes/pki/ca.crt'
cannot size-write 'echo x > /run/marina/node/size.json'
can fuse '[ ! -e /dev/fuse ] || : <> /dev/fuse'
cannot mknod 'mknod /var/null c 1 3'
cannot ext4 'mount -t ext4 /dev/loop0 /var/t'
cannot sysctl 'echo 1 > /proc/sys/vm/overcommit_memory'
cannot sysrq 'echo h > /proc/sysrq-trigger'
cannot usr 'touch /usr/x'
can nested '/opt/marina/runtime/runc --root /run/runc run --bundle /var/c one > /tmp/nested 2>&1 || { cat /tmp/nested; false; }'
cat /tmp/nested
echo done
exec sleep 1000
`

// A node is a machine in a container: what kubelets, runc and nft do works in it, what concerns the machine does not.
func TestNodeIsAMachineInAContainer(t *testing.T) {
	p := newPlace(t)
	c, volume := p.node(inNode)
	nested(t, volume, `echo "pod $(hostname) $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max)"`)
	p.run(c)
	eventually(t, "the node has tried everything", func() bool { return strings.HasSuffix(contents(t, c.Stdout), "done\n") })
	out := contents(t, c.Stdout)
	t.Log(out)
	for line := range strings.Lines(out) {
		for _, bad := range []string{"FAILED", "ALLOWED", "OUTSIDE"} {
			if strings.HasPrefix(line, bad) {
				t.Error(line)
			}
		}
	}
	for _, want := range []string{"uid 0 host node-1 MemTotal:         262144 kB NoNewPrivs:\t0 Seccomp:\t0 CapEff:\t000001ffffffffff\n", "pod pod 33554432\n", "no raise-memory\n", "no mknod\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q", want)
		}
	}
	st, err := os.Stat(filepath.Join(volume, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 1234 {
		t.Errorf("owner on the volume of a file of user 1234: got %d, want 1234: ids are mapped by the mount", uid)
	}
	for _, b := range c.Binds { // replaced by rename, as agents do
		if b.Target == "/etc/kubernetes/pki" {
			if err := os.Rename(filepath.Join(b.Source, "ca.new"), filepath.Join(b.Source, "ca.crt")); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got lockedBuffer
	code, err := p.Exec(t.Context(), c.ID, runtime.Exec{Argv: []string{"cat", "/etc/kubernetes/pki/ca.crt"}, Stdout: &got})
	if err != nil || code != 0 || got.String() != "pki/ca.new" {
		t.Errorf("a file that was replaced: got %q, code %d, %v", got.String(), code, err)
	}
	if err := p.Remove(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
}

func TestContainerHasTheIDsItIsGiven(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())
	c := p.container()
	c.IDs = &kernel.IDRange{First: p.cfg.IDBase + 3*spec.RangeSize, Count: spec.RangeSize}
	r := look(t, p, exits, c)
	if want := fmt.Sprint("0 ", c.IDs.First, " 65536"); r.UIDMap != want {
		t.Errorf("got uid map %q, want %q", r.UIDMap, want)
	}
	for what, err := range r.Refused {
		if err == "" {
			t.Errorf("%s: allowed, want it refused", what)
		}
	}
	if err := r.Allowed["write sandbox"]; err != "" {
		t.Errorf("sandbox: %s", err)
	}
}

func TestLimitsChangeWhileAContainerRuns(t *testing.T) {
	p := newPlace(t)
	c := p.container("stubborn")
	c.CPULimit = 500
	p.run(c)
	memory, quota, share := "memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.shares"
	want := []string{"134217728", "200000", "512", "67108864", "-1", "1024"}
	if unified {
		memory, quota, share = "memory.max", "cpu.max", "cpu.weight"
		want = []string{"134217728", "200000 100000", "20", "67108864", "max 100000", "39"}
	}
	get := func() []string {
		var out []string
		for _, name := range []string{memory, quota, share} {
			out = append(out, strings.TrimSpace(contents(t, p.cgroupFile(c, name))))
		}
		return out
	}
	for i, l := range []runtime.Limits{{MilliCPU: 500, CPULimit: 2000, MemLimit: 128 << 20}, {MilliCPU: 1000, MemLimit: 64 << 20}} {
		if err := p.Update(t.Context(), c.ID, l); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Containers(t.Context()); err != nil { // sets the CPU limit again
			t.Fatal(err)
		}
		if got := get(); fmt.Sprint(got) != fmt.Sprint(want[3*i:3*i+3]) {
			t.Errorf("after %+v: got %v, want %v", l, got, want[3*i:3*i+3])
		}
	}
	if err := p.Update(t.Context(), c.ID, runtime.Limits{MilliCPU: 100, MemLimit: 64 << 10}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("less memory than is in use: got %v, want a failed precondition", err)
	}
	if found, err := p.Containers(t.Context()); err != nil || len(found) != 1 || !found[0].Running {
		t.Errorf("after that: got %+v, %v, want it running", found, err)
	}
	if err := p.Update(t.Context(), "never made", runtime.Limits{}); !errdefs.IsNotFound(err) {
		t.Errorf("of what does not exist: got %v, want not found", err)
	}
}
