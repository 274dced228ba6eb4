//go:build cgo && linux

package meter

import "time"

// The names of what is kept of a device: its counter in mJ; that its power was read; and the time of the newest sample
// of its processes.
const (
	nvmlKeptCounter = "nvml "
	nvmlKeptPower   = "nvml power "
	nvmlKeptSeen    = "nvml samples "
)

func (s *nvmlSensor) keep(to map[string]uint64) {
	for uuid, d := range s.devices {
		switch {
		case d.round != s.round:
			continue
		case d.byPower:
			to[nvmlKeptPower+uuid] = 0
		default:
			to[nvmlKeptCounter+uuid] = d.counter
		}
		to[nvmlKeptSeen+uuid] = d.seen
	}
}

func (s *nvmlSensor) resume(kept map[string]uint64, ago time.Duration) {
	since := s.now().Add(-ago)
	for uuid, d := range s.devices {
		counter, counted := kept[nvmlKeptCounter+uuid]
		switch {
		case counted && !d.byPower:
			d.counter, d.since = counter, since
		case d.byPower && has(kept, nvmlKeptPower+uuid):
			d.since = since
		default:
			d.round = 0 // of none: it is back, and counts from its next reading
			continue
		}
		d.seen, d.sampled = kept[nvmlKeptSeen+uuid], since
	}
}
