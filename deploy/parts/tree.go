package parts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tree returns a process and all that descend from it, parents first.
func tree(root int) []int {
	parents := processes()
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		for pid, parent := range parents {
			if parent == pids[i] && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// stopTree stops a process and all that descend from it, and returns them, the root first. It looks again until no new one was
// born meanwhile.
func stopTree(root int) []int {
	stopped := map[int]bool{}
	for {
		pids := tree(root)
		before := len(stopped)
		for _, pid := range pids {
			if !stopped[pid] {
				_ = syscall.Kill(pid, syscall.SIGSTOP) // the one error is that it is gone
				stopped[pid] = true
			}
		}
		if len(stopped) == before {
			return pids
		}
	}
}

// untilGone waits until the processes have ended. One that nobody has waited for counts as ended.
func untilGone(pids []int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, pid := range pids {
		for running(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d is still there", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// processes maps each process of the system to its parent.
func processes() map[int]int {
	parents := map[int]int{}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return processesByPS()
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if f, err := processStat(pid); err == nil {
			parents[pid], _ = strconv.Atoi(f[statParent])
		}
	}
	return parents
}

func processesByPS() map[int]int {
	parents := map[int]int{}
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return parents
	}
	for line := range strings.Lines(string(out)) {
		var pid, parent int
		if n, _ := fmt.Sscan(line, &pid, &parent); n == 2 {
			parents[pid] = parent
		}
	}
	return parents
}

func running(pid int) bool {
	if f, err := processStat(pid); err == nil {
		return f[statState] != "Z" && f[statState] != "X"
	}
	_, err := os.Stat("/proc")
	return err != nil && syscall.Kill(pid, 0) == nil
}

// Fields of /proc/<pid>/stat, counted from the state on.
const (
	statState  = 0
	statParent = 1
	statUser   = 11 // followed by system, children's user, children's system
	statFields = 15
)

// processStat returns the fields of /proc/<pid>/stat from the state on.
func processStat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // the name before may hold anything
	if len(fields) < statFields {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// clockTick is the unit of times in /proc, the same on all of Linux's architectures.
const clockTick = 10 * time.Millisecond

// cpuTime returns the processor time of a process and of its children that ended and were waited for.
func cpuTime(pid int) (time.Duration, error) {
	fields, err := processStat(pid)
	if err != nil {
		return 0, err
	}
	sum := time.Duration(0)
	for _, f := range fields[statUser : statUser+4] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * clockTick
	}
	return sum, nil
}
