package meter

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// processClock reads the CPU-time clock of another process, ended threads included. The clock's number is made from
// the pid as clock_getcpuclockid(3) does: the complement of the pid, and 2 for CPUCLOCK_SCHED.
func processClock(pid int) (time.Duration, bool) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}

// bootTime returns the time since boot, in which the machine may have been suspended (clock_gettime(2), CLOCK_BOOTTIME).
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// awakeTime is bootTime without the time for which the machine was suspended (CLOCK_MONOTONIC): unlike Go's own
// monotonic clock it goes on from one program to the next.
func awakeTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// file is an open file without what os.File has for files that can be waited for: that costs more than reading a
// process's stat, of which each sample reads many.
type file int

func openFile(path string) (file, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return file(fd), nil
		case !errors.Is(err, unix.EINTR):
			return 0, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// Read is io.Reader's.
func (f file) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), b)
		switch {
		case err == nil && n == 0 && len(b) > 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case !errors.Is(err, unix.EINTR):
			return 0, err
		}
	}
}

// Close is io.Closer's.
func (f file) Close() error { return unix.Close(int(f)) }
