package parts

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// serverAttr is for a server that runs under an account (nil: this process's), in a group of its own, and ends with this
// process.
func serverAttr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: account}
}

// removeSharedMemory removes the System V segment that a killed PostgreSQL leaves behind, whose id is in its lock file.
func removeSharedMemory(lockFile string) {
	const line = 6 // holds the segment's key and id
	text, err := os.ReadFile(lockFile)
	if err != nil {
		return // it ended in order
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) <= line {
		return
	}
	if f := strings.Fields(lines[line]); len(f) == 2 {
		if id, err := strconv.Atoi(f[1]); err == nil {
			_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) // 56 bytes: not worth an error
		}
	}
}
