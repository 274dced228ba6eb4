package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// raplZone is one counter of the kernel's powercap interface (Documentation/power/powercap), Intel's and AMD's alike.
type raplZone struct {
	name   string
	die    string // the package or die that it counts, or whose memory it counts: "package-0-die-1"
	path   string // of energy_uj
	wrapAt uint64 // uJ: the counter's largest value, after which it begins anew

	maxPower Power // more than it counts on average, over any interval

	file    *os.File // open while it can be read: a sample is one system call
	last    uint64   // uJ
	state   readState
	mirrors *raplZone // the zone whose counter this one shows a second time; nil for a counter of its own
}

// raplMaxPower is more than any package or its memory uses on average (500 W parts may draw up to twice that for
// moments): a counter that seems to have wrapped by more has gone back, as it may on resume from suspend.
const raplMaxPower Power = 1000

func newRAPLZone(name, dir string) (*raplZone, error) {
	path := filepath.Join(dir, "max_energy_range_uj")
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	wrapAt, err := sysfsNumber(f)
	if err == nil && wrapAt == 0 {
		err = errors.New("a counter without a range")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &raplZone{name: name, path: filepath.Join(dir, "energy_uj"), wrapAt: wrapAt, maxPower: raplMaxPower}, nil
}

// read returns the energy since the read before. A counter that went back, that may have wrapped more than once, or that
// cannot be read is an error. So is the first reading after one that failed: its interval is as unknown as the one
// before, and 0 J would pass for measured.
func (z *raplZone) read(load Load) (Energy, error) {
	now, err := z.counter()
	if err != nil {
		z.state = readLost
		return 0, err
	}
	last, state := z.last, z.state
	z.last, z.state = now, readCounting
	switch state {
	case readFresh:
		return 0, nil
	case readLost:
		return 0, fmt.Errorf("read %s: %w", z.path, errBack)
	}
	return z.between(last, now, load.Elapsed)
}

// between returns the energy that the counter counted from one reading to the next. It is the only place where wraps
// are handled.
//
// The readings tell it but for whole rounds of the counter. What can be used in the time decides: after 20 s at no more
// than 1 kW a range of 262 kJ leaves one answer. After five minutes, 10 kJ may also be 272 kJ, and the interval is
// unknown; 100 kJ are still certain, since 362 kJ would be too many.
func (z *raplZone) between(last, now uint64, elapsed time.Duration) (Energy, error) {
	most := z.maxPower.Over(elapsed)
	e := raplEnergy(now - last)
	if now < last {
		if e = raplEnergy(z.wrapAt - last + now); e > most {
			return 0, fmt.Errorf("read %s: the counter went back from %d to %d", z.path, last, now)
		}
	}
	if e+raplEnergy(z.wrapAt) <= most {
		return 0, fmt.Errorf("read %s: in %s the counter may have wrapped more often than can be told", z.path, elapsed)
	}
	return e, nil
}

func raplEnergy(microjoules uint64) Energy { return Energy(float64(microjoules) * 1e-6) }

// counter returns the counter in uJ. The file stays open until it fails, as it does for good (ENODEV) when the kernel's
// module is unloaded; the next call opens it anew.
func (z *raplZone) counter() (uint64, error) {
	if z.file == nil {
		f, err := os.Open(z.path)
		if err != nil {
			return 0, err
		}
		z.file = f
	}
	n, err := sysfsNumber(z.file)
	if err != nil {
		z.file.Close()
		z.file = nil
		return 0, fmt.Errorf("read %s: %w", z.path, err)
	}
	if n > z.wrapAt {
		return 0, fmt.Errorf("read %s: %d is outside the counter's range, %d", z.path, n, z.wrapAt)
	}
	return n, nil
}

// stillMirrors says whether z shows the same counter as the zone that it mirrors, which was read just before it: one
// that is read once more now lies on or around z's value. Two counters of their own pass this once by chance, in a
// range of 262 kJ, but not with the next readings.
func (z *raplZone) stillMirrors() bool {
	before, at := z.mirrors.last, z.last
	after, err := z.mirrors.counter()
	if err != nil {
		return false
	}
	if after < before { // it wrapped in between
		return at >= before || at <= after
	}
	return before <= at && at <= after
}

// raplSum adds zones up.
type raplSum struct{ zones []*raplZone }

func (r *raplSum) Method() string { return "rapl" }
func (r *raplSum) Bounds() Bounds { return raplBounds }

// Read is Sensor's. One zone that fails makes the reading incomplete, and so none; all the others are read anyway, so
// that their next readings count from here.
func (r *raplSum) Read(load Load) (Energy, error) {
	var e Energy
	var failed []error
	for _, z := range r.zones {
		part, err := z.read(load)
		if err == nil && z.mirrors != nil {
			if z.stillMirrors() {
				continue
			}
			z.mirrors = nil // it counts after all, and this interval, too
		}
		e += part
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return 0, err
	}
	return e, nil
}

// Detail lists the zones that are added up, for doctor.
func (r *raplSum) Detail() string {
	var names []string
	for _, z := range r.zones {
		if z.mirrors == nil {
			names = append(names, z.name)
		}
	}
	return strings.Join(names, ", ")
}
