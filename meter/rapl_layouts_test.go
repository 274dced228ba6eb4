package meter

import (
	"bufio"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRAPLLayouts runs over testdata/rapl: a folder for each layout of /sys that real machines have, or that may break
// a reader of it. testdata/README.md has the words of the files named "expected".
func TestRAPLLayouts(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	for _, dir := range layouts(t, "rapl") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			root := plant(t, dir)
			powercap := filepath.Join(root, "class", "powercap")
			var sensors map[string]Sensor // nil until they are opened
			var reasons map[string]error
			var elapsed time.Duration
			var readings map[string]reading // nil until they are read
			begin := func() {
				packages, dram, err := openRAPL(root)
				psys, psysErr := openPsys(root)
				sensors = map[string]Sensor{"cpu": packages, "ram": dram, "psys": psys}
				reasons = map[string]error{"cpu": err, "ram": err, "psys": psysErr}
				for _, s := range sensors {
					if s != nil {
						e, err := s.Read(Load{})
						require.NoError(t, err)
						require.Zero(t, e, "the first reading is where it counts from")
					}
				}
			}
			for _, words := range expectations(t, dir) {
				key, rest := words[0], words[1]
				switch key {
				case "after":
					d, err := time.ParseDuration(rest)
					require.NoError(t, err)
					elapsed, readings = d, nil
				case "set":
					zone, value, _ := strings.Cut(rest, " ")
					require.NoError(t, os.WriteFile(filepath.Join(powercap, zone, "energy_uj"), []byte(value+"\n"), 0o644))
				case "gone":
					vanish(t, filepath.Join(powercap, rest, "energy_uj"))
				case "cpu", "ram", "psys":
					if sensors == nil {
						begin()
					}
					if elapsed == 0 {
						expectZones(t, key, rest, sensors[key], reasons[key])
						continue
					}
					if readings == nil {
						readings = map[string]reading{}
						for k, s := range sensors {
							if s != nil {
								e, err := s.Read(Load{Elapsed: elapsed})
								readings[k] = reading{e, err}
							}
						}
					}
					require.Contains(t, readings, key, "there is no such sensor")
					readings[key].expect(t, key, rest)
				default:
					t.Fatalf("%s/expected: what is %q?", dir, key)
				}
			}
			require.NotNil(t, sensors, "expects nothing")
		})
	}
}

func expectZones(t *testing.T, component, want string, s Sensor, err error) {
	t.Helper()
	switch why, not := strings.CutPrefix(want, "cannot: "); {
	case not:
		assert.Nil(t, s, component)
		require.ErrorIs(t, err, ErrNoData, component)
		assert.ErrorContains(t, err, why, component)
	case want == "none":
		assert.Nil(t, s, component)
	default:
		require.NotNil(t, s, "%s: %v", component, err)
		switch s := s.(type) {
		case *raplSum:
			assert.Equal(t, "rapl", s.Method())
		case raplPsys:
			assert.Equal(t, "rapl:psys", s.Method())
		}
		assert.Equal(t, want, s.(detailed).Detail(), component)
		assert.Less(t, s.Bounds().Low, 1.0)
		assert.Greater(t, s.Bounds().High, 1.0)
	}
}

// reading is what a sensor read.
type reading struct {
	energy Energy
	err    error
}

func (r reading) expect(t *testing.T, component, want string) {
	t.Helper()
	if why, ok := strings.CutPrefix(want, "unknown: "); ok {
		require.ErrorContains(t, r.err, why, component)
		assert.Zero(t, r.energy, component)
		return
	}
	require.NoError(t, r.err, component)
	number, ok := strings.CutSuffix(want, " J")
	require.True(t, ok, want)
	joules, err := strconv.ParseFloat(number, 64)
	require.NoError(t, err)
	assert.InDelta(t, joules, r.energy.Joules(), 1e-9, component)
}

// layouts lists the folders of one kind of machines.
func layouts(t *testing.T, kind string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join("testdata", kind, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	return dirs
}

// expectations reads the lines of a layout's file "expected": a word, and the rest of the line.
func expectations(t *testing.T, dir string) (lines [][2]string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "expected"))
	require.NoError(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			key, rest, _ := strings.Cut(line, " ")
			lines = append(lines, [2]string{key, strings.TrimSpace(rest)})
		}
	}
	return lines
}

// plant copies a layout to where its files may change. There the names have their colons: Windows cannot check out a
// repository with a colon in a name, so that testdata has "%3A" in its place.
func plant(t *testing.T, dir string) string {
	t.Helper()
	root := t.TempDir()
	name := func(coded string) string {
		plain, err := url.PathUnescape(coded)
		require.NoError(t, err)
		return plain
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		to := filepath.Join(root, name(rel))
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(name(target), to)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	}))
	return root
}
