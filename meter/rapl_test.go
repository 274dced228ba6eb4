package meter

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tree makes a sysfs of powercap zones: folder -> name and counter in uJ.
type zone struct {
	name    string
	counter string // as the file has it
}

const wrapAt = 262143328850

func powercap(t *testing.T, zones map[string]zone) string {
	t.Helper()
	root := t.TempDir()
	for dir, z := range zones {
		path := filepath.Join(root, "class", "powercap", dir)
		require.NoError(t, os.MkdirAll(path, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(path, "name"), []byte(z.name+"\n"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(path, "max_energy_range_uj"), []byte(strconv.Itoa(wrapAt)+"\n"), 0o644))
		if z.counter == "unreadable" { // tests run as root, whom no mode keeps out
			require.NoError(t, os.Mkdir(filepath.Join(path, "energy_uj"), 0o755))
		} else {
			require.NoError(t, os.WriteFile(filepath.Join(path, "energy_uj"), []byte(z.counter+"\n"), 0o644))
		}
	}
	return root
}

func set(t *testing.T, root, dir string, counter uint64) {
	require.NoError(t, os.WriteFile(filepath.Join(root, "class", "powercap", dir, "energy_uj"), []byte(strconv.FormatUint(counter, 10)), 0o644))
}

func TestRAPLLayouts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zones          map[string]zone
		packages, dram string // zones that are added up; "" for none
	}{
		"a laptop": {map[string]zone{
			"intel-rapl:0": {"package-0", "100"}, "intel-rapl:0/intel-rapl:0:0": {"core", "90"}, "intel-rapl:0/intel-rapl:0:1": {"uncore", "5"},
			"intel-rapl:1": {"psys", "500"}, "intel-rapl-mmio:0": {"package-0", "100"},
		}, "package-0", ""},
		"two packages with nested DRAM": {map[string]zone{
			"intel-rapl:0": {"package-0", "100"}, "intel-rapl:0/intel-rapl:0:0": {"dram", "10"},
			"intel-rapl:1": {"package-1", "200"}, "intel-rapl:1/intel-rapl:1:0": {"dram", "20"},
		}, "package-0, package-1", "dram, dram"},
		"nested zones listed at the top, too": {map[string]zone{
			"intel-rapl:0": {"package-0", "100"}, "intel-rapl:0/intel-rapl:0:0": {"dram", "10"}, "intel-rapl:0:0": {"dram", "10"},
		}, "package-0", "dram"},
		"flat DRAM":             {map[string]zone{"intel-rapl:0": {"package-0", "100"}, "intel-rapl:1": {"dram", "10"}}, "package-0", "dram"},
		"mirrored die":          {map[string]zone{"intel-rapl:0": {"package-0-die-0", "100"}, "intel-rapl:1": {"package-0-die-1", "100"}}, "package-0-die-0", ""},
		"two dies":              {map[string]zone{"intel-rapl:0": {"package-0-die-0", "100"}, "intel-rapl:1": {"package-0-die-1", "101"}}, "package-0-die-0, package-0-die-1", ""},
		"nothing":               {nil, "", ""},
		"no package":            {map[string]zone{"intel-rapl:0": {"psys", "1"}}, "", ""},
		"unreadable":            {map[string]zone{"intel-rapl:0": {"package-0", "unreadable"}}, "", ""},
		"one of two unreadable": {map[string]zone{"intel-rapl:0": {"package-0", "1"}, "intel-rapl:1": {"package-1", "unreadable"}}, "", ""},
		"garbage":               {map[string]zone{"intel-rapl:0": {"package-0", "1e9"}}, "", ""},
		"empty":                 {map[string]zone{"intel-rapl:0": {"package-0", ""}}, "", ""},
		"negative":              {map[string]zone{"intel-rapl:0": {"package-0", "-5"}}, "", ""},
	} {
		packages, dram, err := openRAPL(powercap(t, c.zones))
		if c.packages == "" {
			assert.ErrorIs(t, err, ErrNoData, name)
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, c.packages, packages.(*rapl).names(), name)
		if c.dram == "" {
			assert.Nil(t, dram, name)
		} else {
			assert.Equal(t, c.dram, dram.(*rapl).names(), name)
		}
	}
}

func TestRAPLCounters(t *testing.T) {
	t.Parallel()
	root := powercap(t, map[string]zone{"intel-rapl:0": {"package-0", "5000000"}, "intel-rapl:1": {"package-1", "0"}})
	s, _, err := openRAPL(root)
	require.NoError(t, err)
	read := func() (float64, error) {
		e, err := s.Read(Load{Elapsed: time.Second})
		return e.Joules(), err
	}
	e, err := read()
	require.NoError(t, err)
	assert.Zero(t, e, "the first reading is where it counts from")
	set(t, root, "intel-rapl:0", 7_000_000)
	set(t, root, "intel-rapl:1", 1_000_000)
	e, err = read()
	require.NoError(t, err)
	assert.InDelta(t, 3, e, 1e-9, "packages add up")

	set(t, root, "intel-rapl:0", wrapAt-1_000_000)
	_, err = read()
	require.NoError(t, err)
	set(t, root, "intel-rapl:0", 2_000_000)
	e, err = read()
	require.NoError(t, err)
	assert.InDelta(t, 3, e, 1e-9, "over the wrap")

	set(t, root, "intel-rapl:0", 1_000_000)
	_, err = read()
	assert.Error(t, err, "a counter that goes back, as on resume from suspend, is no wrap of 262 kJ in a second")
	set(t, root, "intel-rapl:0", 2_000_000)
	e, err = read()
	require.NoError(t, err)
	assert.InDelta(t, 1, e, 1e-9, "it counts from where it went back to")

	gone := filepath.Join(root, "class", "powercap", "intel-rapl:1", "energy_uj")
	require.NoError(t, os.Remove(gone))
	_, err = read()
	assert.Error(t, err, "a zone that disappears")
	set(t, root, "intel-rapl:1", 9_000_000)
	_, err = read()
	require.NoError(t, err)
	set(t, root, "intel-rapl:1", 9_500_000)
	e, err = read()
	require.NoError(t, err)
	assert.InDelta(t, 0.5, e, 1e-9, "it is back, and what it counted meanwhile is not the next interval's")
}
