package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// acpiMeter reads the power meter that ACPI (section 10.4) and the kernel's acpi_power_meter driver give of the whole
// machine (Documentation/hwmon/acpi_power_meter.rst). The firmware averages it, over one second on most servers.
type acpiMeter struct {
	path   string // of power1_average, or power1_input
	bounds Bounds
	over   time.Duration // what the firmware averages over; 0 where it does not say

	file  *os.File // open while it can be read
	state readState
}

// acpiBounds are for a meter that does not tell its accuracy: what ENERGY STAR asks of a server that reports its input
// power (Program Requirements for Computer Servers), 5 %.
var acpiBounds = Bounds{Low: 0.95, High: 1.05}

// acpiMaxPower is more than any one machine draws. A meter without a value says so by all bits set (ACPI 10.4.3), which
// reach us as 4.29 MW (lm-sensors issues 130 and 460).
const acpiMaxPower Power = 100_000

// acpiMaxWindow is the longest average that is used. Some servers' is 300 s: a run's first five minutes would be
// mostly what the machine did before it.
const acpiMaxWindow = time.Minute

// openACPI opens the meter of the whole machine. Errors wrap ErrNoData.
//
// Where there are several meters, only one that says that it measures the whole system is used: the others may be of
// parts (NVIDIA's Grace has one per rail), of single supplies, or of the other machines in the chassis, and a sum would
// be wrong by as much as the machine itself.
func openACPI(sysfs string) (WallSensor, error) {
	root := filepath.Join(sysfs, "class", "hwmon")
	dirs := acpiFolders(root)
	if len(dirs) == 0 {
		return nil, fmt.Errorf("%w: no power_meter under %s (few machines but servers have one; modprobe acpi_power_meter loads its driver)", ErrNoData, root)
	}
	var whole, unsaid []string
	for _, dir := range dirs {
		switch {
		case sysfsText(dir, "power1_is_battery") == "1": // it measures a battery
		case acpiMeasures(dir, "LNXSYBUS*"):
			whole = append(whole, dir)
		case !acpiMeasures(dir, "*"):
			unsaid = append(unsaid, dir)
		}
	}
	if len(whole) == 0 && len(dirs) == 1 {
		whole = unsaid
	}
	if len(whole) != 1 {
		return nil, fmt.Errorf("%w: of the %d power meters under %s, %d are known to be the whole machine's", ErrNoData, len(dirs), root, len(whole))
	}
	m, err := newACPIMeter(whole[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	return m, nil
}

// acpiFolders lists the folders of the meters' files: the hwmon's own, or, as this driver has it, that of its device.
func acpiFolders(root string) (dirs []string) {
	found, _ := filepath.Glob(filepath.Join(root, "hwmon*"))
	for _, hwmon := range found {
		for _, dir := range []string{hwmon, filepath.Join(hwmon, "device")} {
			if sysfsText(dir, "name") == "power_meter" {
				dirs = append(dirs, dir)
				break
			}
		}
	}
	return dirs
}

// acpiMeasures says whether the meter lists a device of such a name as measured. The one that measures the entire system
// has \_SB as its sole entry (ACPI 10.4.8), which the kernel calls LNXSYBUS:00.
func acpiMeasures(dir, pattern string) bool {
	for _, device := range []string{dir, filepath.Join(dir, "device")} {
		if found, _ := filepath.Glob(filepath.Join(device, "measures", pattern)); len(found) > 0 {
			return true
		}
	}
	return false
}

func newACPIMeter(dir string) (*acpiMeter, error) {
	m := &acpiMeter{path: filepath.Join(dir, "power1_average"), bounds: acpiAccuracy(sysfsText(dir, "power1_accuracy"))}
	if _, err := os.Stat(m.path); errors.Is(err, fs.ErrNotExist) {
		m.path = filepath.Join(dir, "power1_input")
	}
	interval := filepath.Join(dir, "power1_average_interval")
	// All bits set is "unknown" here, too.
	if ms, err := strconv.ParseUint(sysfsText(dir, "power1_average_interval"), 10, 32); err == nil && ms < 1<<32-1 {
		m.over = time.Duration(ms) * time.Millisecond
	}
	if m.over > acpiMaxWindow {
		return nil, fmt.Errorf("%s: its power is an average over %s, longer than %s (where the firmware allows it: echo 1000 | sudo tee %s)",
			m.path, m.over, acpiMaxWindow, interval)
	}
	if _, err := m.power(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// acpiAccuracy parses power1_accuracy, "95.0%" for an accuracy to 5 %. The kernel drops the zeros after the point
// (show_accuracy in acpi_power_meter.c), so that only what is before it is used. Fewer than 50 % are no accuracy that a
// meter would be sold with, and 100 % none that it could have.
func acpiAccuracy(text string) Bounds {
	whole, _, _ := strings.Cut(strings.TrimSuffix(text, "%"), ".")
	percent, err := strconv.ParseUint(whole, 10, 8)
	if err != nil || percent < 50 || percent >= 100 {
		return acpiBounds
	}
	e := float64(100-percent) / 100
	return Bounds{Low: 1 - e, High: 1 + e}
}

func (m *acpiMeter) Method() string { return "acpi" }
func (m *acpiMeter) Bounds() Bounds { return m.bounds }

// Read is WallSensor's; what the components read does not matter to it. The first Read returns 0.
//
// The power is taken for the whole interval that ends with it: it is an average over what came before already, and the
// mean of the two ends would be later still. Over a run the two differ by half an interval at its beginning and end.
func (m *acpiMeter) Read(_ Energy, load Load) (Energy, error) {
	p, err := m.power()
	if err != nil {
		m.state = readLost
		return 0, err
	}
	state := m.state
	m.state = readCounting
	switch {
	case state == readFresh:
		return 0, nil
	case state == readLost:
		return 0, fmt.Errorf("read %s: %w", m.path, errBack)
	case load.Gap:
		return 0, fmt.Errorf("read %s: its power now says nothing of the %s since the reading before", m.path, load.Elapsed)
	}
	return p.Over(load.Elapsed), nil
}

// power reads the meter. A machine that runs draws something: 0 W is a meter that does not work.
func (m *acpiMeter) power() (Power, error) {
	if m.file == nil {
		f, err := os.Open(m.path)
		if err != nil {
			return 0, err
		}
		m.file = f
	}
	microwatts, err := sysfsNumber(m.file)
	if err != nil {
		m.close()
		return 0, fmt.Errorf("read %s: %w", m.path, err)
	}
	p := Power(float64(microwatts) * 1e-6)
	if p <= 0 || p > acpiMaxPower {
		return 0, fmt.Errorf("read %s: the meter gives no value (%d uW)", m.path, microwatts)
	}
	return p, nil
}

func (m *acpiMeter) close() {
	if m.file != nil {
		m.file.Close()
		m.file = nil
	}
}

// Detail says what is read, for doctor.
func (m *acpiMeter) Detail() string {
	if m.over == 0 {
		return m.path
	}
	return fmt.Sprintf("%s, averaged over %s", m.path, m.over)
}
