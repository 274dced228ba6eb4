package meter

import (
	"bytes"
	"embed"
	"encoding/csv"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shirou/gopsutil/v3/cpu"
)

//go:embed data/*.csv
var modelData embed.FS

// modelLine is a thread's power when idle and when busy.
type modelLine struct{ idle, full Power }

type modelTable struct {
	architectures map[string]modelLine
	models        map[string]string  // architecture by model name: "EPYC 7351", "E5-2697 v4", "Gold 5220", "8259CL"
	tdp           map[string]float64 // W by modelKey of the name
	median        modelLine          // over the architectures
}

// modelTables reads the embedded tables, once.
var modelTables = sync.OnceValue(func() modelTable {
	t := modelTable{architectures: map[string]modelLine{}, models: map[string]string{}, tdp: map[string]float64{}}
	watts := func(s string) float64 {
		v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			panic("meter/data: " + err.Error())
		}
		return v
	}
	var idle, full []float64
	for _, r := range modelRows("cpu_architectures.csv") {
		l := modelLine{Power(watts(r[1])), Power(watts(r[2]))}
		t.architectures[r[0]] = l
		idle, full = append(idle, l.idle.Watts()), append(full, l.full.Watts())
	}
	t.median = modelLine{Power(modelMedian(idle)), Power(modelMedian(full))}
	for _, r := range modelRows("cpu_models.csv") {
		t.models[r[0]] = r[1]
	}
	for _, r := range modelRows("cpu_tdp.csv") {
		// The table has a value that is no number and one that is zero: those CPUs are unknown. Names that differ
		// only in how they are written are there twice, with nearly the same value: the first counts.
		key := modelKey(modelName(r[0]))
		if w, err := strconv.ParseFloat(r[1], 64); err == nil && w > 0 && t.tdp[key] == 0 {
			t.tdp[key] = w
		}
	}
	return t
})

func modelMedian(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func modelRows(file string) [][]string {
	b, err := modelData.ReadFile("data/" + file)
	if err != nil {
		panic(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		panic("meter/data/" + file + ": " + err.Error())
	}
	return rows[1:]
}

// modelNoise is what vendors, and one of the tables, put around a model's name.
var modelNoise = regexp.MustCompile(`(?i)\((R|TM)\)|\bCPU\b|\b([0-9]+|Dual|Triple|Quad|Six|Eight|Twelve|Sixteen)-Core Processor\b|\bProcessor\b|` +
	`@.*$|\b(with|w/) Radeon.*$|^\d+(st|nd|rd|th) Gen `)

// modelName writes a model's name as the tables do: "Intel Core i7-8650U" for "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz".
func modelName(name string) string {
	name = strings.NewReplacer("(tm)-", "-", "(TM)-", "-").Replace(name) // AMD FX(tm)-8350
	// "Eight-Core" stands alone in FX and the first Ryzens' names, but belongs to "Pentium Dual-Core".
	name = strings.TrimSuffix(strings.TrimSpace(modelNoise.ReplaceAllString(name, " ")), " Eight-Core")
	return strings.Join(strings.Fields(name), " ")
}

// modelKey is a name by which the TDP table is searched, whose rows differ in case.
func modelKey(name string) string { return strings.ToLower(name) }

// architecture tells a CPU's architecture by its model name, else by family and model number, which virtual machines
// show even where they hide the name. It is empty where no table knows it.
func (t modelTable) architecture(info cpu.InfoStat, name string) string {
	// The table has names without the vendor, and without the family in most rows: "Intel Xeon Gold 6136" is "6136".
	// Of AMD's it has EPYC only, always by that name, so that a bare number of AMD's is never Intel's.
	words := strings.Fields(name)
	for i := range words {
		candidate := strings.Join(words[i:], " ")
		if arch, ok := t.models[candidate]; ok && t.known(arch) && (info.VendorID == "AuthenticAMD") == strings.HasPrefix(candidate, "EPYC") {
			return arch
		}
	}
	if arch := modelByNumber(info.VendorID, info.Family, info.Model, int(info.Stepping), name); t.known(arch) {
		return arch
	}
	return ""
}

func (t modelTable) known(arch string) bool { _, ok := t.architectures[arch]; return ok }

// modelClient are AMD's parts for desktops and laptops, which share family and model numbers with EPYC but neither its
// clock nor its power per thread: TDP is nearer.
var modelClient = regexp.MustCompile(`\b(Ryzen|Athlon)\b`)

// modelByNumber maps CPUID family and model, in decimal as /proc/cpuinfo shows them, to the tables' names, by the
// kernel's intel-family.h and AMD's revision guides.
func modelByNumber(vendor, family, model string, stepping int, name string) string {
	n, err := strconv.Atoi(model)
	if err != nil {
		return ""
	}
	if vendor == "AuthenticAMD" && modelClient.MatchString(name) {
		return ""
	}
	switch vendor + "/" + family {
	case "AuthenticAMD/23": // Zen, Zen 2
		switch {
		case n < 16:
			return "EPYC 1st Gen"
		case n >= 48 && n < 64:
			return "EPYC 2nd Gen"
		}
	case "AuthenticAMD/25": // Zen 3, Zen 4
		switch {
		case n < 16:
			return "EPYC 3rd Gen"
		case n < 32 || n >= 160:
			return "EPYC 4th Gen"
		}
	case "AuthenticAMD/26": // Zen 5
		if n < 32 {
			return "EPYC 5th Gen"
		}
	case "GenuineIntel/6":
		if n == 85 { // Skylake-SP, Cascade Lake from stepping 5; Cooper Lake, 10 and 11, is the nearest to that
			if stepping >= 5 {
				return "Cascade Lake"
			}
			return "Skylake"
		}
		return map[int]string{45: "Sandy Bridge", 62: "Ivy Bridge", 63: "Haswell", 79: "Broadwell", 86: "Broadwell", 94: "Skylake",
			158: "Coffee Lake", 106: "Ice Lake", 108: "Ice Lake", 143: "Sapphire Rapids", 207: "Emerald Rapids", 173: "Granite Rapids"}[n]
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
