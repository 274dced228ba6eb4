package mlflow

import "syscall"

// childAttributes put a child into a process group of its own, so that Ctrl-C reaches it through us only: the server when
// its last figures are written. And they end it with us, even if we are killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// signalGroup sends a signal to the server and all that it started.
func signalGroup(pid int, s syscall.Signal) { _ = syscall.Kill(-pid, s) }
