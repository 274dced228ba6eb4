package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// drmBounds: the chip's own sensor is read, as with NVML to about 10 %, but not its board's: AMD's RX 6800 XT has 255 W
// in power1_cap and 300 W in its data sheet, Intel's Arc A770 190 W and 225 W, so that up to a fifth may be missing.
var drmBounds = Bounds{Low: 0.9, High: 1.2}

// drmSensor reads the cards of one of the kernel's drivers: "amdgpu", "i915" or "xe".
type drmSensor struct {
	driver  string
	devices []*drmDevice
	clients drmClients
}

// openDRM opens AMD's and Intel's cards, one sensor per driver. err says of each card that is passed over why, and
// wraps ErrNoData; there may be sensors in spite of it. A card that has a meter but cannot be read now stays with its
// driver's others, and is an error in their readings until it is back.
//
// Graphics inside the CPU are passed over: RAPL's package has them in it, and a CPU model has, too. NVIDIA's cards are
// NVML's.
func openDRM(procfs, sysfs string) (sensors []GPUSensor, err error) {
	root := filepath.Join(sysfs, "class", "drm")
	devices, others := drmDevices(root)
	if len(devices) == 0 {
		found := "no card is there, or its driver is not loaded"
		if len(others) > 0 {
			found = "the cards there are run by " + strings.Join(others, ", ")
		}
		return nil, fmt.Errorf("%w: no card of amdgpu, i915 or xe under %s (%s)", ErrNoData, root, found)
	}
	var passedOver []error
	for _, driver := range []string{"amdgpu", "i915", "xe"} {
		s := &drmSensor{driver: driver, clients: newDRMClients(procfs, driver)}
		readable := false
		var failed []error
		for _, d := range devices {
			if d.driver != driver {
				continue
			}
			err := d.open()
			if err != nil {
				failed = append(failed, fmt.Errorf("%s (%s): %w", d.address, driver, err))
			}
			if !errors.Is(err, errNoMeter) {
				s.devices = append(s.devices, d)
				readable = readable || err == nil
			}
		}
		passedOver = append(passedOver, failed...)
		if readable {
			sensors = append(sensors, s)
		}
	}
	if len(passedOver) > 0 {
		return sensors, fmt.Errorf("%w: %w", ErrNoData, errors.Join(passedOver...))
	}
	return sensors, nil
}

// drmCard is a card's own folder, as against those of its connectors ("card0-DP-1") and of renderD128.
var drmCard = regexp.MustCompile(`^card[0-9]+$`)

// drmDevices lists the devices of our drivers, each once, and the names of other drivers.
func drmDevices(root string) (devices []*drmDevice, others []string) {
	cards, _ := filepath.Glob(filepath.Join(root, "card*"))
	for _, card := range cards {
		if !drmCard.MatchString(filepath.Base(card)) {
			continue
		}
		// The link's target stays the same where a driver that is loaded anew numbers its cards anew.
		dir, err := filepath.EvalSymlinks(filepath.Join(card, "device"))
		if err != nil {
			continue // a card of no device, as vkms has them
		}
		uevent := drmUevent(dir)
		d := &drmDevice{dir: dir, driver: uevent["DRIVER"], address: uevent["PCI_SLOT_NAME"]}
		if to, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			d.driver = filepath.Base(to)
		}
		if d.address == "" {
			d.address = filepath.Base(card)
		}
		switch d.driver {
		case "amdgpu", "i915", "xe":
			if !slices.ContainsFunc(devices, func(o *drmDevice) bool { return o.address == d.address }) {
				devices = append(devices, d)
			}
		case "":
		default:
			if !slices.Contains(others, d.driver) {
				others = append(others, d.driver)
			}
		}
	}
	return devices, others
}

// drmUevent reads the KEY=value lines of a device's uevent; it is empty where that cannot be read.
func drmUevent(dir string) map[string]string {
	b, _ := os.ReadFile(filepath.Join(dir, "uevent"))
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = value
		}
	}
	return values
}

func (s *drmSensor) Method() string { return s.driver }
func (s *drmSensor) Bounds() Bounds { return drmBounds }

// Read is GPUSensor's.
func (s *drmSensor) Read(load Load) ([]GPUReading, error) {
	holders := s.clients.read(load)
	readings := make([]GPUReading, 0, len(s.devices))
	for _, d := range s.devices {
		e, err := d.read(load)
		r := GPUReading{Device: d.address, Err: err}
		if err == nil {
			r.Energy, r.Processes = e, holders[d.address]
		}
		readings = append(readings, r)
	}
	return readings, nil
}

// Close is GPUSensor's.
func (s *drmSensor) Close() {
	for _, d := range s.devices {
		d.close()
	}
}

// Detail lists the cards and what is read of each, for doctor.
func (s *drmSensor) Detail() string {
	var names []string
	for _, d := range s.devices {
		if d.path != "" {
			names = append(names, d.address+" ("+filepath.Base(d.path)+")")
		}
	}
	return strings.Join(names, ", ")
}

// drmRemedy is what opens the cards' meters; empty where nothing is known to. Of the two errors that Go takes for a
// lack of permission, EPERM is a card's that sleeps or is being reset.
func drmRemedy(err error) string {
	if !errors.Is(err, syscall.EACCES) {
		return ""
	}
	return `sudo chmod a+r /sys/class/drm/card*/device/hwmon/hwmon*/energy*_input /sys/class/drm/card*/device/hwmon/hwmon*/power1_* ` +
		`(until the next boot; for good, as a udev rule: SUBSYSTEM=="hwmon", ACTION=="add", RUN+="/bin/sh -c 'chmod a+r /sys%p/energy*_input /sys%p/power1_*'")`
}
