package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// prepare makes the container what containerd and the kubelet take for a machine.
func (n *Node) prepare() error {
	for _, dir := range []string{
		"/var/lib/kubelet/volumeplugins", "/var/lib/kubelet/pki", "/var/lib/containerd", "/var/lib/cni", "/var/log/pods",
		"/var/log/containers", "/run/containerd", runDir + "/registries/_default", cniDir,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// As on a machine: /run, /tmp and /var/tmp start empty but for what the container brought, /var/run is /run.
	if err := os.Symlink("/run", "/var/run"); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chmod("/var/lib/kubelet", 0o750); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making mounts shared: %w", err)
	}
	if n.config.UserNamespace {
		return nil
	}
	return n.shield()
}

// shield is for a node that has no user namespace, and so would change the machine: the kubelet gets sysctls of its own
// to look at and to set, and no kernel log. It also leaves a whole /proc and /sys mounted, without which the kernel
// refuses pods with user namespaces new ones, since a file lies over the node's /proc/meminfo.
func (n *Node) shield() error {
	sysctls := map[string]string{"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
	for name, value := range sysctls {
		file := filepath.Join(runDir, "sysctl", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(file, "/proc/sys/"+name, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("covering sysctl %s: %w", name, err)
		}
	}
	if _, err := os.Lstat("/dev/kmsg"); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile("/dev/kmsg", nil, 0o600); err != nil {
			return err
		}
	}
	if err := syscall.Mount("/dev/null", "/dev/kmsg", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("covering /dev/kmsg: %w", err)
	}
	for fs, dir := range map[string]string{"proc": runDir + "/whole/proc", "sysfs": runDir + "/whole/sys"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := syscall.Mount(fs, dir, fs, syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
			n.log.Say("no whole %s, pods with user namespaces will not start: %v", fs, err)
		}
	}
	return nil
}

// writeStatic writes what does not change while the node runs.
func (c *Config) writeStatic(images []Image) error {
	if err := write(runDir+"/containerd.toml", []byte(containerdConfig(images))); err != nil {
		return err
	}
	if len(c.Registries) > 0 {
		if err := write(runDir+"/registries/_default/hosts.toml", []byte(hostsTOML(c.Registries))); err != nil {
			return err
		}
	}
	for _, name := range []string{"kubelet", "proxy", "nodenet"} {
		if err := writeJSON(runDir+"/"+name+".kubeconfig", c.kubeconfig(name)); err != nil {
			return err
		}
	}
	return nil
}

// writeKubelet writes the kubelet's configuration for the size the node has now. Without a size file the node has the
// whole machine.
func (c *Config) writeKubelet() error {
	size, err := readSize(sizeFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	return writeJSON(runDir+"/kubelet.json", c.kubeletConfig(size, machineCPUs(string(cpuinfo))))
}

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return write(file, append(b, '\n'))
}

// write replaces a file by rename.
func write(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
