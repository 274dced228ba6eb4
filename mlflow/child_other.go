//go:build !linux

package mlflow

import (
	"os"
	"syscall"
)

func childAttributes() *syscall.SysProcAttr { return nil }

func signalGroup(pid int, s syscall.Signal) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Signal(s)
	}
}
