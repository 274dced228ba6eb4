//go:build !linux

package meter

import (
	"os"
	"time"
)

func processClock(int) (time.Duration, bool) { return 0, false }

// bootTime stands in for a clock that goes on while the machine is suspended: the wall clock, which may be set as well.
func bootTime() time.Duration { return time.Duration(time.Now().UnixNano()) }

// awakeTime is bootTime's stand-in, too.
func awakeTime() time.Duration { return bootTime() }

func openFile(path string) (*os.File, error) { return os.Open(path) }
