package meter

import (
	"bytes"
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

// vanish takes a counter away as sysfs does when the module is unloaded: a file that is open fails, too.
func vanish(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.Truncate(path, 0))
	require.NoError(t, os.Remove(path))
}

// A zone that could not be read even once, at start-up, must not make the first interval look whole.
func TestRAPLFirstReadingFails(t *testing.T) {
	t.Parallel()
	root := powercap(t, map[string]zone{"intel-rapl:0": {"package-0", "0"}, "intel-rapl:1": {"package-1", "0"}})
	s, _, err := openRAPL(root)
	require.NoError(t, err)
	vanish(t, filepath.Join(root, "class", "powercap", "intel-rapl:1", "energy_uj"))
	_, err = s.Read(Load{})
	require.Error(t, err)
	set(t, root, "intel-rapl:0", 1_000_000)
	set(t, root, "intel-rapl:1", 1_000_000)
	_, err = s.Read(Load{Elapsed: time.Second})
	require.Error(t, err)
	set(t, root, "intel-rapl:1", 2_000_000)
	e, err := s.Read(Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 1, e.Joules(), 1e-9)
}

// The power that a wrap would mean tells a wrap from a counter that went back, and one wrap from several.
func TestRAPLWrapIsPlausible(t *testing.T) {
	t.Parallel()
	const (
		back    = "went back"
		rounds  = "may have wrapped more often"
		outside = "outside the counter's range"
	)
	for name, c := range map[string]struct {
		last, now, wrapAt uint64
		elapsed           time.Duration
		joules            float64
		why               string // of the error; empty for none
	}{
		"no wrap":                     {1_000_000, 3_000_000, wrapAt, time.Second, 2, ""},
		"standing still":              {5, 5, wrapAt, time.Second, 0, ""},
		"a wrap at 100 W":             {wrapAt - 60_000_000, 40_000_000, wrapAt, time.Second, 100, ""},
		"a wrap to nought":            {wrapAt - 1_000_000, 0, wrapAt, time.Second, 1, ""},
		"just under 1 kW":             {wrapAt, 999_000_000, wrapAt, time.Second, 999, ""},
		"over 1 kW":                   {wrapAt, 1_001_000_000, wrapAt, time.Second, 0, back},
		"the same over two seconds":   {wrapAt, 1_001_000_000, wrapAt, 2 * time.Second, 1001, ""},
		"back by a little":            {5_000_000, 4_999_999, wrapAt, time.Second, 0, back},
		"no time passed":              {wrapAt, 1, wrapAt, 0, 0, back},
		"time went back":              {wrapAt, 1, wrapAt, -time.Hour, 0, back},
		"a range of a narrow counter": {65_000_000_000, 500_000_000, 65_532_610_987, time.Minute, 1032.610987, ""},
		"a value over the range":      {2_000_000, 1_500_001, 1_500_000, time.Second, 0, outside},
		"no range":                    {0, 1_000_000, 0, time.Second, 0, outside},
		"just short of two rounds":    {0, 0, 100_000_000, 99 * time.Millisecond, 0, ""},
		"none or one":                 {0, 0, 100_000_000, 100 * time.Millisecond, 0, rounds},
		"one or two":                  {1, 0, 100_000_000, 200 * time.Millisecond, 0, rounds},
		"one, but not two":            {50_000_000, 49_000_000, 100_000_000, 198 * time.Millisecond, 99, ""},
	} {
		path := filepath.Join(t.TempDir(), "energy_uj")
		require.NoError(t, os.WriteFile(path, []byte(strconv.FormatUint(c.now, 10)), 0o644))
		z := raplZone{path: path, wrapAt: c.wrapAt, maxPower: raplMaxPower, last: c.last, state: readCounting}
		e, err := z.read(Load{Elapsed: c.elapsed})
		if c.why == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.why, name)
		}
		assert.InDelta(t, c.joules, e.Joules(), 1e-6, name)
		if c.why == outside {
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(strconv.FormatUint(c.now+7_000_000, 10)), 0o644))
		e, err = z.read(Load{Elapsed: time.Millisecond})
		if c.now+7_000_000 > c.wrapAt {
			require.ErrorContains(t, err, outside, name)
			continue
		}
		require.NoError(t, err, name)
		assert.InDelta(t, 7, e.Joules(), 1e-6, "%s: the next interval is whole", name)
	}
}

// Whatever the kernel shows, and however long it takes: no panic, and never a figure that is no energy.
func FuzzRAPLZone(f *testing.F) {
	f.Add(uint64(wrapAt), uint64(time.Second), []byte("5000000\n7000000\n262143000000\n1000000\n"))
	f.Add(uint64(65_532_610_987), uint64(time.Hour), []byte("1\n\n-5\n1e9\n18446744073709551615\n2"))
	f.Add(uint64(1), uint64(1<<63), []byte("0\n1\n0\n1\n0\n1"))
	f.Add(uint64(1<<64-1), uint64(1), []byte("9223372036854775807\n0\n9223372036854775807"))
	f.Fuzz(func(t *testing.T, wrapAt, elapsed uint64, readings []byte) {
		path := filepath.Join(t.TempDir(), "energy_uj")
		z := raplZone{path: path, wrapAt: wrapAt, maxPower: raplMaxPower}
		s := raplSum{zones: []*raplZone{&z, {path: path, wrapAt: wrapAt, maxPower: raplMaxPower, mirrors: &z}}}
		defer func() {
			for _, z := range s.zones {
				if z.file != nil {
					z.file.Close()
				}
			}
		}()
		for i, content := range bytes.Split(readings, []byte("\n")) {
			if i == 16 {
				break
			}
			if len(content) == 0 {
				_ = os.Remove(path)
			} else if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			e, err := s.Read(Load{Elapsed: time.Duration(elapsed >> (4 * i))})
			if err != nil && e != 0 {
				t.Fatalf("%v J in spite of %v", e, err)
			}
			if j := e.Joules(); !(j >= 0) || j > 2e-6*float64(wrapAt) {
				t.Fatalf("%v J of a counter of %d uJ", j, wrapAt)
			}
		}
	})
}
