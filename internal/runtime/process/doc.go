// Package process is a runtime.Runtime of plain processes of the machine, without any isolation: no image, no
// namespace, no limit. It exists for tests, where it stands in for containers with the same life: its processes outlive
// the one that started them and are found again, with their exit codes, by whoever opens the same directory. It passes
// the suite of runtimetest.
//
// A container is a directory: container.json (what was asked for), pid and start (its process), shim (the shell that
// waits for it and leads its session), exit (its exit code). The shim is a few lines of /bin/sh, so that no program has
// to be built for it. A container whose process and shim are gone without an exit file has vanished, as if its shim had
// been killed.
//
// Volumes and memory are directories: mounting a volume makes a link to its directory. Limits are noted. Nothing that
// is bound is seen by a process where it is bound to.
//
// The sandbox, the bind mount with the target runtime.SandboxTarget, is not mounted; MESOS_SANDBOX names its source
// instead.
package process
