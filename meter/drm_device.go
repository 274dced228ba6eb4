package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// errNoMeter says that a card has no meter of its own, and will not get one.
var errNoMeter = errors.New("no meter of its own")

// drmDevice is one card, read by the kernel's hwmon files (Documentation/hwmon/sysfs-interface.rst).
type drmDevice struct {
	address string // PCI address, as in the drm-pdev of its clients; the card's name where it is no PCI device
	driver  string
	dir     string // the device's folder

	file  *os.File // open while it can be read
	path  string   // of file
	kept  string   // which of drmFiles it is, once that could be read: another would count something else
	last  uint64   // uJ, or uW where it is no counter
	state readState
}

// drmFiles are a card's meters, the best first. The xe driver has the whole card's counter as energy1_input and the
// chip's as energy2_input; older cards have only the latter (ABI/testing/sysfs-driver-intel-xe-hwmon). AMD's have a
// power, averaged or not, and not all have both.
var drmFiles = []string{"energy1_input", "energy2_input", "power1_average", "power1_input"}

// drmMaxPower is more than any card draws (the largest have 1.4 kW). The registers of a card that fell off its bus
// read as all ones, and must not pass for energy.
const drmMaxPower Power = 5000

// drmMaxInterval is how long a counter of 32 bits and 1/2^14 J lasts at 1 kW. The i915 and xe drivers extend it whenever
// it is read, and only then (hwm_energy in i915_hwmon.c): in a longer interval it may have wrapped more than once.
const drmMaxInterval = 262 * time.Second

// open finds the card's meter. Drivers number their hwmon folders anew when they are loaded anew.
func (d *drmDevice) open() error {
	if d.isAPU() {
		return fmt.Errorf("%w: an APU, whose power is the whole package's and counted as the CPU's", errNoMeter)
	}
	var failed []error
	for _, dir := range d.hwmon() {
		for _, name := range drmFiles {
			if d.kept != "" && d.kept != name {
				continue
			}
			path := filepath.Join(dir, name)
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil && !d.asleep() {
				if _, err = drmValue(f, path); err != nil { // some cards have files that they do not support
					f.Close()
				}
			}
			if err != nil {
				failed = append(failed, err)
				continue
			}
			d.file, d.path = f, path
			return nil
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	if d.path != "" {
		return fmt.Errorf("read %s: %w", d.path, fs.ErrNotExist)
	}
	hwmon := filepath.Join(d.dir, "hwmon")
	switch {
	case d.driver == "amdgpu":
		return fmt.Errorf("%w: its driver gives no power under %s (a part of a card that is shared by virtual machines, or amdgpu.dpm=0)", errNoMeter, hwmon)
	case d.address == "0000:00:02.0": // where Intel's graphics inside the CPU always are
		return fmt.Errorf("%w: graphics inside the CPU, whose energy has theirs in it", errNoMeter)
	}
	return fmt.Errorf("%w: its driver gives no energy under %s (discrete cards need Linux 6.2 or later)", errNoMeter, hwmon)
}

// hwmon lists the folders of the card's own hwmon. The i915 driver has one more per tile, "i915_gt0", whose energy is
// inside the card's.
func (d *drmDevice) hwmon() (dirs []string) {
	found, _ := filepath.Glob(filepath.Join(d.dir, "hwmon", "hwmon*"))
	for _, dir := range found {
		if sysfsText(dir, "name") == d.driver {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// isAPU says whether the card is AMD's graphics inside the CPU, whose power "includes the CPU" (amdgpu_pm.c, "hwmon").
// Intel's have no hwmon at all (i915_hwmon_register and xe_hwmon_register leave out what is not discrete).
//
// Only APUs have a northbridge voltage, labelled vddnb (the same file, in hwmon_attributes_visible), and only their
// gpu_metrics are of format 2 and 3 (kgd_pp_interface.h). The MI300A has neither, and is known by its PCI device. The
// kernel names no memory vendor of an APU either (mem_info_vram_vendor), but neither of a card that is shared by virtual
// machines.
func (d *drmDevice) isAPU() bool {
	if d.driver != "amdgpu" {
		return false
	}
	for _, dir := range d.hwmon() {
		if sysfsText(dir, "in1_label") == "vddnb" {
			return true
		}
	}
	if sysfsText(d.dir, "device") == "0x74a0" {
		return true
	}
	if d.asleep() { // an APU does not sleep, and the next file wakes what does
		return false
	}
	// The header is the table's size in two bytes, then its format.
	b, err := os.ReadFile(filepath.Join(d.dir, "gpu_metrics"))
	return err == nil && len(b) >= 4 && (b[2] == 2 || b[2] == 3)
}

// asleep says that the card is suspended while the machine runs. Reading its meters would wake it (or fail, with amdgpu
// since Linux 6.15), so that measuring would cost more than the card does.
func (d *drmDevice) asleep() bool {
	status := sysfsText(d.dir, "power", "runtime_status")
	return status == "suspended" || status == "suspending"
}

// read returns the energy since the read before. As with RAPL, a counter that went back or a file that cannot be read
// is an error, and so is the first reading after one that failed. A card that sleeps uses nothing.
//
// A power is taken for the whole interval that ends with it. Its mean with the one before would differ, over a run, by
// half an interval at the run's beginning and end, and would be late where the power is an average already.
func (d *drmDevice) read(load Load) (Energy, error) {
	if d.asleep() {
		return 0, nil
	}
	now, err := d.value()
	if err != nil {
		if d.asleep() { // since
			return 0, nil
		}
		d.state = readLost
		return 0, err
	}
	last, state := d.last, d.state
	d.last, d.state = now, readCounting
	switch {
	case state == readFresh:
		return 0, nil
	case state == readLost:
		return 0, fmt.Errorf("read %s: %w", d.path, errBack)
	case !drmCounts(d.path) && load.Gap:
		return 0, fmt.Errorf("read %s: its power now says nothing of the %s since the reading before", d.path, load.Elapsed)
	case !drmCounts(d.path):
		return Power(float64(now) * 1e-6).Over(load.Elapsed), nil
	case load.Elapsed > drmMaxInterval:
		return 0, fmt.Errorf("read %s: the counter may have wrapped in the %s since the reading before", d.path, load.Elapsed)
	case now < last:
		return 0, fmt.Errorf("read %s: the counter went back from %d to %d", d.path, last, now)
	}
	e := Energy(float64(now-last) * 1e-6)
	if e > drmMaxPower.Over(load.Elapsed+time.Second) { // the counter may tick at the interval's beginning, and again at its end
		return 0, fmt.Errorf("read %s: the counter jumped from %d to %d", d.path, last, now)
	}
	return e, nil
}

func (d *drmDevice) value() (uint64, error) {
	if d.file == nil {
		if err := d.open(); err != nil {
			return 0, err
		}
	}
	v, err := drmValue(d.file, d.path)
	if err != nil {
		d.close()
		return 0, err
	}
	d.kept = filepath.Base(d.path)
	return v, nil
}

func (d *drmDevice) close() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
}

func drmCounts(path string) bool { return strings.HasPrefix(filepath.Base(path), "energy") }

// drmValue reads a meter: uJ or uW.
func drmValue(f *os.File, path string) (uint64, error) {
	v, err := sysfsNumber(f)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	if !drmCounts(path) && float64(v)*1e-6 > drmMaxPower.Watts() {
		return 0, fmt.Errorf("read %s: %d uW is no card's power", path, v)
	}
	return v, nil
}
