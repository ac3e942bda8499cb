package tests_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// process identifies a process for ever; a pid alone may be used again.
type process struct {
	pid     int
	started string
}

// alive reports whether the process still runs.
func (p process) alive() bool {
	_, started, err := stat(p.pid)
	return err == nil && started == p.started
}

// command returns the file name of the process's program.
func (p process) command() string {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// sharedMemory returns the files in /dev/shm that the process has mapped.
func (p process) sharedMemory() []string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	var files []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if i := strings.Index(lines.Text(), "/dev/shm/"); i >= 0 {
			files = append(files, lines.Text()[i:])
		}
	}
	return files
}

// descendants returns the children of a process, their children, and so on.
func descendants(t *testing.T, pid int) []process {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	children := make(map[int][]process)
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, started, err := stat(child); err == nil {
			children[parent] = append(children[parent], process{child, started})
		}
	}
	all := children[pid]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].pid]...)
	}
	return all
}

// stat returns the parent of a process and when it started, in clock ticks
// since boot. A zombie counts as ended.
func stat(pid int) (parent int, started string, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", err
	}
	// The second field is the name in brackets and may contain anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if fields[0] == "Z" {
		return 0, "", os.ErrProcessDone
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[19], err
}

// peakMemory returns the peak of the process's resident memory, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kilobytes, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatal("no VmHWM in /proc/PID/status")
	return 0
}
