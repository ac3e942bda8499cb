package local

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The variables of our environment that a server sees, and how the names of
// further ones start. Everything else stays here, because it may be a secret:
// settings of the gateway, credentials of clouds. docs/operations.md lists
// them.
var (
	passedNames    = []string{"PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "TZ", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE"}
	passedPrefixes = []string{"CUDA_", "KMP_", "LC_", "MKL_", "OMP_", "OPENBLAS_"}
)

// passedEnvironment returns the part of our environment that a server may see;
// more names variables to add.
func passedEnvironment(more []string) []string {
	var environment []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains(passedNames, name) || slices.Contains(more, name) ||
			slices.ContainsFunc(passedPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			environment = append(environment, entry)
		}
	}
	return environment
}

// privateCommand makes the command of a program that creates no file that other
// users can open. The umask belongs to all threads of a process, so a shell
// sets it, which then becomes the program.
func privateCommand(program string, args ...string) *exec.Cmd {
	return exec.Command("/bin/sh", append([]string{"-c", `umask 077; exec "$@"`, "sh", program}, args...)...)
}

// auditArchitecture is the kernel's number of a system call interface. An
// unknown interface is an error, because the same number may be another call.
var auditArchitecture = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}

// keepModes makes fchmod(file, 0644) do nothing, in this thread and in the
// processes that it starts from now on. The thread must end with them.
//
// Triton's Python backend exchanges pictures with its processes through regions
// that Boost.Interprocess creates. Boost calls fchmod(file, 0644) after it has
// created one, so that a umask has no effect, and has no option. To change the
// mode afterwards is too late: a user that waits for the file has opened it.
func keepModes() error {
	architecture, ok := auditArchitecture[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("the system calls of %s are not known here", runtime.GOARCH)
	}
	// Offsets in struct seccomp_data, of little-endian machines.
	const number, arch, mode = 0, 4, 16 + 8
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// skipUnless goes on when the value is as given, or else skips instructions.
	skipUnless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: value}
	}
	answer := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	filter := []unix.SockFilter{
		load(arch), skipUnless(architecture, 5),
		load(number), skipUnless(unix.SYS_FCHMOD, 3),
		load(mode), skipUnless(0o644, 1),
		answer(unix.SECCOMP_RET_ERRNO), // error number 0: success
		answer(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Without this only root may install a filter. The server gains nothing from
	// programs that run as another user anyway.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	// Without SPEC_ALLOW kernels before 5.16 slow down everything that a process
	// with a filter computes.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
