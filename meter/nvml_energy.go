//go:build cgo && linux

package meter

import (
	"errors"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlDevice is what is known of a device since its reading before.
type nvmlDevice struct {
	round   uint64    // the sensor's reading that last took its energy
	since   time.Time // up to when its energy is known
	counter uint64    // mJ, at since
	byPower bool      // it has no counter, or one that stands still

	seen    uint64          // time of the newest sample of its processes, in us by the driver's clock
	sampled time.Time       // when that was read
	busy    map[int]float64 // what it said, by pid
}

// nvmlStill is how long a counter may stand still. It ticks about every 100 ms where there is one, and the idlest
// device uses some joules in this time; on virtual GPUs there are counters that never move.
const nvmlStill = 5 * time.Second

// energy returns the energy since the energy before, 0 the first time, and notes round when the next one can count from
// here; an error then loses this interval only.
//
// The device's counter (mJ, Volta and later) is preferred: NVML's power is a sample or an average over a second, which
// on A100 and H100 covers 25 % of the time.
func (d *nvmlDevice) energy(device nvml.Device, calls nvmlCalls, load Load, now time.Time, round uint64) (Energy, error) {
	if calls.energy && !d.byPower {
		counter, ret := device.GetTotalEnergyConsumption()
		switch ret {
		case nvml.SUCCESS:
			if !d.stands(counter, device, calls, now) {
				d.round = round
				return d.count(counter, now)
			}
		case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND:
		default:
			return 0, nvmlError("read its energy counter", ret)
		}
		d.byPower = true
	}
	if !calls.power {
		return 0, errors.New("it has no energy counter, and the library does not read power")
	}
	milliwatts, ret := device.GetPowerUsage()
	if ret != nvml.SUCCESS {
		return 0, nvmlError("read its power", ret)
	}
	since := d.since
	d.since, d.round = now, round
	switch {
	case since.IsZero():
		return 0, nil
	case load.Gap:
		return 0, errors.New("its power says nothing of so long a time, and counts from here")
	}
	return Power(float64(milliwatts) * 1e-3).Over(now.Sub(since)), nil
}

// count returns the energy since the counter last moved.
func (d *nvmlDevice) count(counter uint64, now time.Time) (Energy, error) {
	last, first := d.counter, d.since.IsZero()
	d.counter = counter
	if first || counter != last {
		d.since = now
	}
	switch {
	case first:
		return 0, nil
	case counter < last: // the driver was reloaded, or the device reset
		return 0, fmt.Errorf("its energy counter went back from %d to %d mJ", last, counter)
	}
	return Energy(float64(counter-last) * 1e-3), nil
}

// stands says whether the counter has stood still for too long while the device draws power.
func (d *nvmlDevice) stands(counter uint64, device nvml.Device, calls nvmlCalls, now time.Time) bool {
	if d.since.IsZero() || counter != d.counter || now.Sub(d.since) < nvmlStill || !calls.power {
		return false
	}
	milliwatts, ret := device.GetPowerUsage()
	return ret == nvml.SUCCESS && milliwatts > 0
}
