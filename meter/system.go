package meter

import (
	"errors"
	"io/fs"
	"net/netip"
	"runtime"
	"syscall"
	"time"
)

// system is what metering asks the operating system about its processes. One value is used by one goroutine at a time.
type system interface {
	// machine returns the CPU time that was used since boot, summed over the CPUs, and a number that grows whenever a
	// process is made.
	machine() (busy time.Duration, forks uint64, err error)
	// bootID names the machine's boot; empty where it cannot be told.
	bootID() string
	// began returns bootTime of when a process began, by stat.start.
	began(start uint64) time.Duration
	// memoryUsed returns the bytes of memory in use.
	memoryUsed() (uint64, error)
	// pids lists the processes.
	pids() ([]int, error)
	// stat reads one process. That it is gone is an error of which hasEnded holds.
	stat(pid int) (stat, error)
	// proportional returns a process's memory, with pages that several share divided among them. It may take seconds.
	proportional(pid int) (uint64, error)
	// arguments returns a process's command line; nil for one that has none, or is gone.
	arguments(pid int) []string
	// environment returns a process's variables as it began with them, as "NAME=value".
	environment(pid int) ([]string, error)
	// cgroup returns the path of a process's control group; empty where there are none.
	cgroup(pid int) string
	// peer returns the process at the other end of a TCP connection that was accepted on this machine; local and
	// remote are its ends as the acceptor sees them. The error wraps ErrNoPeer where no visible process has it.
	peer(local, remote netip.AddrPort) (int, error)
	// listener returns the process that accepts TCP connections at an address. The error wraps ErrNoPeer where no
	// visible process does.
	listener(at netip.AddrPort) (int, error)
}

// stat is what is known of one process.
type stat struct {
	pid, parent int
	zombie      bool          // it ended, and its parent has not waited for it yet
	start       uint64        // when it began, in the system's own unit (ticks since boot on Linux); with the pid it names a process for good, since pids are reused
	tty         int           // controlling terminal, 0 for none
	own         time.Duration // CPU time of its threads, ended ones included
	children    time.Duration // CPU time of its children that ended and were waited for, and of theirs
	memory      uint64        // resident bytes
	leaders     [2]int        // of its process group and its session; 0 where there are none
}

// hasEnded says of stat's error whether the process is gone. Others are of the moment: we may have run out of files.
func hasEnded(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// openSystem returns this system's processes: by /proc, or a tree like it under procfs, on Linux; elsewhere by the
// calls that gopsutil knows.
func openSystem(procfs string) system {
	if runtime.GOOS == "linux" {
		return newProcfs(procfs)
	}
	return portable{}
}
