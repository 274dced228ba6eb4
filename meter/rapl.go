package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// raplBounds is the counters' known error against a meter on the package's supply.
var raplBounds = Bounds{Low: 0.9, High: 1.1}

// openRAPL opens the package zones and the DRAM zones, each nil where there are none or one of them cannot be read: a
// part of the machine must not pass for the whole. err says why, wraps ErrNoData and names the file; one of the two
// may be there in spite of it.
//
// Packages are added up; DRAM is not inside them, nested or not. Cores and uncore are inside the package, psys is the
// whole platform (openPsys), and intel-rapl-mmio repeats the package by other means: they are left out.
func openRAPL(sysfs string) (packages, dram Sensor, err error) {
	root := filepath.Join(sysfs, "class", "powercap")
	dirs := raplFolders(root)
	if len(dirs) == 0 {
		return nil, nil, fmt.Errorf("%w: no RAPL under %s (a virtual machine, or the kernel's intel_rapl_msr is not loaded)", ErrNoData, root)
	}
	var p, d raplSum
	var failedPackage, failedDRAM error
	for _, key := range sortedKeys(dirs) {
		dir := dirs[key]
		name, err := raplName(dir)
		switch {
		case err != nil && strings.Count(key, ":") == 1: // a zone at the top may be a package
			failedPackage = errors.Join(failedPackage, err)
		case err != nil:
			failedDRAM = errors.Join(failedDRAM, err)
		case strings.HasPrefix(name, "package-"):
			err = p.open(name, name, dir)
			failedPackage = errors.Join(failedPackage, err)
		case name == "dram":
			die := ""                                                      // a flat zone is no die's
			if parent, ok := dirs[key[:strings.LastIndex(key, ":")]]; ok { // "intel-rapl:1" of "intel-rapl:1:0"
				die, _ = raplName(parent)
			}
			err = d.open(name, die, dir)
			failedDRAM = errors.Join(failedDRAM, err)
		}
	}
	if failedPackage == nil && len(p.zones) == 0 {
		failedPackage = fmt.Errorf("no package zone under %s", root)
	}
	if failedPackage == nil {
		packages = &p
	}
	if failedDRAM == nil && len(d.zones) > 0 {
		dram = &d
	}
	if err := errors.Join(failedPackage, failedDRAM); err != nil {
		return packages, dram, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	return packages, dram, nil
}

// raplFolders finds the zones' folders by their own name. On a real machine the nested zones are listed at the top,
// too, as links: each is taken once.
func raplFolders(root string) map[string]string {
	dirs := map[string]string{}
	for _, pattern := range []string{"intel-rapl:*/intel-rapl:*", "intel-rapl:*"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, dir := range found {
			dirs[filepath.Base(dir)] = dir
		}
	}
	return dirs
}

func raplName(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "name"))
	return strings.TrimSpace(string(b)), err
}

// open adds a zone.
//
// Some parts with several dies show one counter once per die, for the packages and for their memory. A further die
// that shows what another die of its package does is taken for such a mirror, and not counted for as long as it goes
// on to do so.
func (r *raplSum) open(name, die, dir string) error {
	z, err := newRAPLZone(name, dir)
	if err != nil {
		return err
	}
	z.die = die
	for _, o := range r.zones {
		if o.mirrors != nil || o.die == z.die || raplPackage(o.die) == o.die || raplPackage(o.die) != raplPackage(z.die) {
			continue
		}
		if o.last, err = o.counter(); err != nil {
			return err
		}
		if z.last, err = z.counter(); err != nil {
			return err
		}
		if z.mirrors = o; z.stillMirrors() {
			break
		}
		z.mirrors = nil
	}
	if _, err := z.counter(); err != nil {
		return err
	}
	r.zones = append(r.zones, z)
	return nil
}

// raplPackage is the package of a die: "package-0" of "package-0-die-1".
func raplPackage(die string) string {
	name, _, _ := strings.Cut(die, "-die-")
	return name
}
