package meter

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// fdinfo is what the kernel tells of one client of a card in /proc/PID/fdinfo/FD (Documentation/gpu/drm-usage-stats.rst).
type fdinfo struct {
	driver  string
	client  drmClientID
	engines map[string]drmEngine
	memory  uint64 // bytes on the card, not in the machine's memory
}

// drmClientID names a client: its number is the card's own on some kernels, and the machine's on others.
type drmClientID struct{ device, number string }

// drmEngine is how long a kind of engine worked for a client since that was opened: in ns, or in cycles out of the
// engine's own count of them.
type drmEngine struct {
	ns       uint64
	cycles   uint64
	total    uint64 // cycles of the engine, whoever it worked for; 0 where it counts ns
	capacity uint64 // engines of this kind; 0 stands for one
}

// parseFdinfo parses an fdinfo file; ok is false for one that names no driver, card and client, as those of other files
// and of amdgpu before Linux 5.19. What is not as documented is left out.
func parseFdinfo(b []byte) (f fdinfo, ok bool) {
	type region struct {
		rank  int
		bytes uint64
	}
	regions := map[string]region{}
	f.engines = map[string]drmEngine{}
	for line := range strings.Lines(string(b)) {
		key, rest, found := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(rest)
		if !found || len(words) == 0 {
			continue
		}
		kind, name := drmKey(key)
		n, err := strconv.ParseUint(words[0], 10, 64)
		number := err == nil
		e := f.engines[name]
		switch {
		case key == "drm-driver":
			f.driver = words[0]
		case key == "drm-pdev":
			f.client.device = words[0]
		case key == "drm-client-id":
			f.client.number = words[0]
		case kind == "" || !number:
			continue
		case kind == "drm-engine-" && len(words) == 2 && words[1] == "ns":
			e.ns = n
			f.engines[name] = e
		case kind == "drm-engine-capacity-":
			e.capacity = n
			f.engines[name] = e
		case kind == "drm-cycles-":
			e.cycles = n
			f.engines[name] = e
		case kind == "drm-total-cycles-":
			e.total = n
			f.engines[name] = e
		default:
			bytes, known := drmBytes(n, words[1:])
			rank := drmMemory[kind]
			if known && onCard(name) && rank > regions[name].rank {
				regions[name] = region{rank, bytes}
			}
		}
	}
	for _, r := range regions {
		f.memory += min(r.bytes, math.MaxUint64-f.memory)
	}
	return f, f.driver != "" && f.client.device != "" && f.client.number != ""
}

// drmMemory ranks the keys for a client's memory in a region: what it occupies now before all that was ever asked for.
// drm-memory- is the older name for resident.
var drmMemory = map[string]int{"drm-resident-": 3, "drm-memory-": 2, "drm-total-": 1}

// drmKey splits a key into its kind and what it is of. Longer kinds come first: drm-engine-capacity-video is no engine.
func drmKey(key string) (kind, name string) {
	for _, kind := range []string{"drm-engine-capacity-", "drm-engine-", "drm-total-cycles-", "drm-cycles-",
		"drm-resident-", "drm-memory-", "drm-total-"} {
		if name, ok := strings.CutPrefix(key, kind); ok && name != "" {
			return kind, name
		}
	}
	return "", ""
}

// drmBytes converts an amount of memory with its unit; known is false for other units, and for what does not fit.
func drmBytes(n uint64, unit []string) (bytes uint64, known bool) {
	shift := 0
	switch strings.Join(unit, " ") {
	case "":
	case "KiB":
		shift = 10
	case "MiB":
		shift = 20
	default:
		return 0, false
	}
	return n << shift, n <= math.MaxUint64>>shift
}

// onCard says whether a region is the card's own memory: amdgpu's vram, xe's vram0, i915's local0 and stolen-local0.
func onCard(region string) bool {
	return strings.HasPrefix(region, "vram") || strings.HasPrefix(region, "local") || strings.HasPrefix(region, "stolen-local")
}

// catchUp keeps the larger of two readings of an engine. A driver may report less than before for a while, and then
// catches up; an engine that it leaves out stands still.
func (e drmEngine) catchUp(before drmEngine) drmEngine {
	e.ns = max(e.ns, before.ns)
	e.cycles, e.total = max(e.cycles, before.cycles), max(e.total, before.total)
	e.capacity = max(e.capacity, before.capacity)
	return e
}

// since returns the share of an interval for which the engines of this kind worked for the client, given what they had
// by its beginning. It is never negative.
func (e drmEngine) since(before drmEngine, elapsed time.Duration) float64 {
	share := 0.0
	switch {
	case e.ns > before.ns && elapsed > 0:
		share = float64(e.ns-before.ns) / float64(elapsed)
	case e.cycles > before.cycles && e.total > before.total:
		share = float64(e.cycles-before.cycles) / float64(e.total-before.total)
	}
	return share / float64(max(1, e.capacity))
}
