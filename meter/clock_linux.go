package meter

import (
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
