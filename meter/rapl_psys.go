package meter

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// psysBounds is wider than the packages': what the counter covers, and how well, is up to the board's maker, who wires
// and calibrates the sensor at the supply. On two laptops it agreed with what the whole laptop drew (Raffin and
// Trystram, "Dissecting the software-based measurement of CPU energy consumption", 2024). There are boards where it
// stands still under load (an i7-7600U's, in CodeCarbon's notes on RAPL): that is why it is read only where it is asked
// for.
var psysBounds = Bounds{Low: 0.8, High: 1.25}

// psysMaxPower is more than a platform of eight packages with their memory uses on average.
const psysMaxPower Power = 8 * raplMaxPower

// raplPsys is the platform's counter: packages, DRAM and what else hangs on the board's supply, but no graphics card
// with a supply of its own.
type raplPsys struct{ *raplZone }

func (raplPsys) Method() string { return "rapl:psys" }
func (raplPsys) Bounds() Bounds { return psysBounds }

// Detail names the zone, for doctor.
func (p raplPsys) Detail() string { return p.name }

// Read is Sensor's.
func (p raplPsys) Read(load Load) (Energy, error) { return p.read(load) }

// openPsys opens the zone of the whole platform. It takes the place of the packages and of their DRAM, which are inside
// it: adding them would count them twice. Errors wrap ErrNoData.
//
// The kernel calls it "psys", or "psys-N" where package N is the one of several that counts it: the others' counters
// read 0 and are left out (intel_rapl_common.c; "enumerate Psys RAPL domain together with package RAPL domain", 2020).
func openPsys(sysfs string) (Sensor, error) {
	root := filepath.Join(sysfs, "class", "powercap")
	dirs := raplFolders(root)
	var zones []*raplZone
	var failed error
	for _, key := range sortedKeys(dirs) {
		name, err := raplName(dirs[key])
		if err != nil && strings.Count(key, ":") == 1 { // the platform's zone is at the top
			failed = errors.Join(failed, err)
		}
		if name != "psys" && !strings.HasPrefix(name, "psys-") {
			continue
		}
		z, err := newRAPLZone(name, dirs[key])
		if err == nil {
			_, err = z.counter()
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoData, err)
		}
		z.maxPower = psysMaxPower
		zones = append(zones, z)
	}
	switch {
	case len(zones) == 1:
		return raplPsys{zones[0]}, nil
	case len(zones) > 1: // two platforms cannot be told from one that is shown twice
		return nil, fmt.Errorf("%w: %d psys zones under %s", ErrNoData, len(zones), root)
	case failed != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoData, failed)
	}
	return nil, fmt.Errorf("%w: no psys zone under %s", ErrNoData, root)
}
