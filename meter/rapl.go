package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// raplRemedy opens the counters, which are root's since CVE-2020-8694.
const raplRemedy = `sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj /sys/class/powercap/intel-rapl*/*/energy_uj ` +
	`(until the next boot; for good, as a udev rule: SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/sh -c 'chmod a+r /sys%p/energy_uj'")`

// raplBounds is the counters' known error against a meter on the package's supply.
var raplBounds = Bounds{Low: 0.9, High: 1.1}

// raplZone is one counter of the kernel's powercap interface (Documentation/power/powercap), Intel's and AMD's alike.
type raplZone struct {
	name   string
	path   string // of energy_uj
	wrapAt uint64 // uJ at which the counter begins anew
	last   uint64 // uJ
	primed bool   // last is a reading
}

// maxZonePower is more than any package can use: a counter that seems to have wrapped by more has gone back, as it may
// on resume from suspend.
const maxZonePower Power = 2000

// read returns the energy since the read before. A counter that went back, or cannot be read, is an error, and the next
// read starts anew.
func (z *raplZone) read(load Load) (Energy, error) {
	now, err := readCounter(z.path)
	if err != nil {
		z.primed = false
		return 0, err
	}
	last, primed := z.last, z.primed
	z.last, z.primed = now, true
	if !primed {
		return 0, nil
	}
	delta := now - last
	if now < last {
		delta = now + z.wrapAt - last
	}
	e := Energy(float64(delta) * 1e-6)
	if now < last && (z.wrapAt < last || e > maxZonePower.Over(load.Elapsed)) {
		return 0, fmt.Errorf("read %s: the counter went back from %d to %d", z.path, last, now)
	}
	return e, nil
}

func readCounter(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, ok := number(bytes.TrimSpace(b))
	if !ok || n < 0 {
		return 0, fmt.Errorf("read %s: %q is not a counter", path, bytes.TrimSpace(b[:min(len(b), 40)]))
	}
	return uint64(n), nil
}

// rapl adds zones up.
type rapl struct{ zones []*raplZone }

func (r *rapl) Method() string { return "rapl" }
func (r *rapl) Bounds() Bounds { return raplBounds }

// Read is Sensor's. One zone that fails makes the reading incomplete, and so none; all the others are read anyway, so
// that their next readings count from here.
func (r *rapl) Read(load Load) (Energy, error) {
	var e Energy
	var failed []error
	for _, z := range r.zones {
		part, err := z.read(load)
		e += part
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return 0, err
	}
	return e, nil
}

// names lists the zones, for doctor.
func (r *rapl) names() string {
	var names []string
	for _, z := range r.zones {
		names = append(names, z.name)
	}
	return strings.Join(names, ", ")
}

// openRAPL opens the package zones, and the DRAM zones if there are any (nil else). Packages are added up; DRAM is not
// inside them, nested or not. Cores and uncore are inside the package, psys is the whole platform, and intel-rapl-mmio
// repeats the package by other means: they are left out. Errors wrap ErrNoData.
func openRAPL(sysfs string) (packages, dram Sensor, err error) {
	root := filepath.Join(sysfs, "class", "powercap")
	dirs, _ := filepath.Glob(filepath.Join(root, "intel-rapl:*"))
	nested, _ := filepath.Glob(filepath.Join(root, "intel-rapl:*", "intel-rapl:*"))
	// On a real machine the nested zones are listed at the top, too, as links: by name each is taken once.
	zones := map[string]string{}
	for _, dir := range append(nested, dirs...) {
		zones[filepath.Base(dir)] = dir
	}
	if len(zones) == 0 {
		return nil, nil, fmt.Errorf("%w: no RAPL under %s (a virtual machine, or the intel_rapl module is not loaded)", ErrNoData, root)
	}
	var p, d rapl
	var failed []error
	for _, key := range sortedKeys(zones) {
		dir := zones[key]
		name, err := os.ReadFile(filepath.Join(dir, "name"))
		if err != nil {
			failed = append(failed, err)
			continue
		}
		z := &raplZone{name: strings.TrimSpace(string(name)), path: filepath.Join(dir, "energy_uj")}
		isPackage := strings.HasPrefix(z.name, "package-")
		if !isPackage && z.name != "dram" {
			continue
		}
		if z.wrapAt, err = readCounter(filepath.Join(dir, "max_energy_range_uj")); err == nil {
			z.last, err = readCounter(z.path)
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if isPackage {
			p.zones = append(p.zones, z)
		} else {
			d.zones = append(d.zones, z)
		}
	}
	p.zones = withoutMirrors(p.zones)
	if err := errors.Join(failed...); err != nil { // a part of the machine would pass for the whole
		return nil, nil, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	if len(p.zones) == 0 {
		return nil, nil, fmt.Errorf("%w: no package zone under %s", ErrNoData, root)
	}
	if len(d.zones) > 0 {
		dram = &d
	}
	return &p, dram, nil
}

// withoutMirrors drops further dies of a package whose counter shows what another die's does: some parts with several
// dies show one counter several times. Two counters of their own cannot stand at the same microjoule.
func withoutMirrors(zones []*raplZone) []*raplZone {
	var own []*raplZone
	for _, z := range zones {
		mirror := strings.Contains(z.name, "-die-") && slices.ContainsFunc(own, func(o *raplZone) bool {
			now, err := readCounter(o.path)
			return err == nil && z.last > 0 && packageOf(o.name) == packageOf(z.name) && (z.last == o.last || z.last == now)
		})
		if !mirror {
			own = append(own, z)
		}
	}
	return own
}

// packageOf is the package in a zone's name: "package-0" of "package-0-die-1".
func packageOf(name string) string {
	name, _, _ = strings.Cut(name, "-die-")
	return name
}
