package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU time in /proc on Linux.
const clockTick = 10 * time.Millisecond

// Usage is the CPU time and memory of a process and its descendants.
type Usage struct {
	CPU time.Duration
	// Memory is the resident memory now; shared pages count more than once. Peak is
	// the sum of each process's peak.
	Memory, Peak int64
}

// UsageOf returns the usage of a process and its descendants so far.
func UsageOf(pid int) (Usage, error) {
	pids, err := Family(pid)
	if err != nil {
		return Usage{}, err
	}
	var sum Usage
	for _, p := range pids {
		ticks, err := cpuTicks(p)
		if err != nil {
			continue // the process has ended, and its parent counts it
		}
		sum.CPU += time.Duration(ticks) * clockTick
		sum.Memory += memory(p, "VmRSS:")
		sum.Peak += memory(p, "VmHWM:")
	}
	return sum, nil
}

// Family is a process and its descendants.
func Family(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields, err := stat(child); err == nil {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// stat returns the fields of /proc/PID/stat from the third, the state, on.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	text := string(data)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:]), nil
}

// cpuTicks is the time that a process has run in user mode and in the kernel,
// including its children that have ended.
func cpuTicks(pid int) (int64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, field := range fields[11:15] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += ticks
	}
	return sum, nil
}

// memory reads a figure of /proc/PID/status in bytes; 0 if it is missing.
func memory(pid int, name string) int64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, name); found {
			kilobytes, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}
