//go:build !linux

package parts

import "syscall"

// serverAttr is for a server that runs under an account (nil: this process's), in a group of its own.
func serverAttr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: account}
}

// removeSharedMemory is for systems where a killed PostgreSQL leaves a segment behind that can be removed.
func removeSharedMemory(string) {}
