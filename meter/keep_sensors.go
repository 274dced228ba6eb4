package meter

import "time"

// counting is a sensor that can go on from where it was read last before the program was ended: what it reads counts by
// itself. So does one that reads power as far as it is kept that there was a reading, where an interval is not too long
// for a power.
type counting interface {
	// keep notes what was read last, by names that are the machine's; nothing of what could not be read.
	keep(map[string]uint64)
	// resume makes the next reading count from what was kept so long ago. What was not kept is lost until the reading
	// after that.
	resume(kept map[string]uint64, ago time.Duration)
}

// counting lists the meter's sensors that count.
func (m *Meter) counting() (all []counting) {
	var sensors []any
	for _, g := range m.gpus {
		sensors = append(sensors, g)
	}
	for _, s := range append(sensors, m.cpu, m.ram, m.wall) {
		if c, ok := s.(counting); ok {
			all = append(all, c)
		}
	}
	return all
}

func (z *raplZone) keep(to map[string]uint64) {
	if z.state == readCounting {
		to["rapl "+z.path] = z.last
	}
}

func (z *raplZone) resume(kept map[string]uint64, _ time.Duration) {
	last, ok := kept["rapl "+z.path]
	if z.state = readLost; ok && last <= z.wrapAt {
		z.last, z.state = last, readCounting
	}
}

func (r *raplSum) keep(to map[string]uint64) {
	for _, z := range r.zones {
		z.keep(to)
	}
}

func (r *raplSum) resume(kept map[string]uint64, ago time.Duration) {
	for _, z := range r.zones {
		z.resume(kept, ago)
	}
}

func (m *acpiMeter) keep(to map[string]uint64) {
	if m.state == readCounting {
		to["acpi "+m.path] = 0
	}
}

func (m *acpiMeter) resume(kept map[string]uint64, _ time.Duration) {
	if m.state = readLost; has(kept, "acpi "+m.path) {
		m.state = readCounting
	}
}

func (d *drmDevice) keep(to map[string]uint64) {
	if d.state == readCounting {
		to["drm "+d.path] = d.last
	}
}

func (d *drmDevice) resume(kept map[string]uint64, _ time.Duration) {
	if d.state = readLost; has(kept, "drm "+d.path) {
		d.last, d.state = kept["drm "+d.path], readCounting
	}
}

func (s *drmSensor) keep(to map[string]uint64) {
	for _, d := range s.devices {
		d.keep(to)
	}
}

func (s *drmSensor) resume(kept map[string]uint64, ago time.Duration) {
	for _, d := range s.devices {
		d.resume(kept, ago)
	}
}

func (h *hastyGPU) keep(to map[string]uint64) {
	if c, ok := h.GPUSensor.(counting); ok && h.pending == nil {
		c.keep(to)
	}
}

func (h *hastyGPU) resume(kept map[string]uint64, ago time.Duration) {
	if c, ok := h.GPUSensor.(counting); ok && h.pending == nil {
		c.resume(kept, ago)
	}
}

func has(kept map[string]uint64, name string) bool {
	_, ok := kept[name]
	return ok
}
