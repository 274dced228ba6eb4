package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each folder of testdata/drm is a machine's sysfs; its file "want" has the sensors that are opened there, one a line,
// and then why the other cards are passed over.
func TestDRMLayouts(t *testing.T) {
	t.Parallel()
	layouts, err := os.ReadDir(filepath.Join("testdata", "drm"))
	require.NoError(t, err)
	require.NotEmpty(t, layouts)
	for _, layout := range layouts {
		dir := filepath.Join("testdata", "drm", layout.Name())
		want, err := os.ReadFile(filepath.Join(dir, "want"))
		require.NoError(t, err)
		sysfs, err := filepath.Abs(filepath.Join(dir, "sys"))
		require.NoError(t, err)
		sensors, err := openDRM(filepath.Join(dir, "proc"), sysfs)
		var got strings.Builder
		for _, s := range sensors {
			fmt.Fprintf(&got, "%s: %s\n", s.Method(), s.(*drmSensor).Detail())
			assert.Less(t, s.Bounds().Low, 1.0)
			assert.Greater(t, s.Bounds().High, 1.0)
			s.Close()
		}
		if err != nil {
			require.ErrorIs(t, err, ErrNoData, layout.Name())
			assert.Empty(t, drmRemedy(err), "%s: no permission is missing", layout.Name())
			for line := range strings.SplitSeq(strings.ReplaceAll(err.Error(), sysfs, "/sys"), "\n") {
				fmt.Fprintf(&got, "%s\n", strings.TrimPrefix(line, ErrNoData.Error()+": "))
			}
		}
		assert.Equal(t, string(want), got.String(), layout.Name())
	}
}

// drmTree is a copy of a layout, whose files tests change.
type drmTree struct {
	t    *testing.T
	root string
}

func newDRMTree(t *testing.T, layout string) drmTree {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.CopyFS(filepath.Join(root, "sys"), os.DirFS(filepath.Join("testdata", "drm", layout, "sys"))))
	return drmTree{t, root}
}

func (d drmTree) write(path, content string) {
	d.t.Helper()
	path = filepath.Join(d.root, path)
	require.NoError(d.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(d.t, os.WriteFile(path, []byte(content), 0o644))
}

func (d drmTree) vanish(path string) { vanish(d.t, filepath.Join(d.root, path)) }

// open opens the only sensor of the tree.
func (d drmTree) open() GPUSensor {
	d.t.Helper()
	sensors, _ := openDRM(filepath.Join(d.root, "proc"), filepath.Join(d.root, "sys"))
	require.Len(d.t, sensors, 1)
	d.t.Cleanup(sensors[0].Close)
	return sensors[0]
}

// next reads the only device of a sensor.
func next(t *testing.T, s GPUSensor, load Load) (float64, error) {
	t.Helper()
	r, err := s.Read(load)
	require.NoError(t, err)
	require.Len(t, r, 1)
	if r[0].Err != nil {
		assert.Equal(t, GPUReading{Device: r[0].Device, Err: r[0].Err}, r[0], "only Device and Err are set")
	}
	assert.GreaterOrEqual(t, r[0].Energy.Joules(), 0.0)
	return r[0].Energy.Joules(), r[0].Err
}

const drmHwmon = "sys/class/drm/card0/device/hwmon/"

func TestDRMCounter(t *testing.T) {
	t.Parallel()
	d := newDRMTree(t, "intel-battlemage-xe")
	s := d.open()
	counter := drmHwmon + "hwmon2/energy1_input"
	read := func(microjoules uint64, load Load) (float64, error) {
		d.write(counter, strconv.FormatUint(microjoules, 10)+"\n")
		return next(t, s, load)
	}
	second := Load{Elapsed: time.Second}
	e, err := read(1_000_000, Load{})
	require.NoError(t, err)
	assert.Zero(t, e, "the first reading is where it counts from")
	e, err = read(151_000_000, second)
	require.NoError(t, err)
	assert.InDelta(t, 150, e, 1e-9)
	e, err = read(151_000_000, second)
	require.NoError(t, err)
	assert.Zero(t, e, "standing still")
	e, err = read(651_000_000, Load{Elapsed: 10 * time.Second, Gap: true})
	require.NoError(t, err)
	assert.InDelta(t, 500, e, 1e-9, "a counter counts through a gap")

	_, err = read(600_000_000, second)
	require.ErrorContains(t, err, "went back")
	e, err = read(600_500_000, second)
	require.NoError(t, err)
	assert.InDelta(t, 0.5, e, 1e-9, "it counts from where it went back to")

	_, err = read(600_500_000+262_144_000_000, second)
	require.ErrorContains(t, err, "jumped", "all ones of a card that is gone are no energy")
	_, err = read(600_500_000+262_145_000_000, Load{Elapsed: 5 * time.Minute})
	require.ErrorContains(t, err, "wrapped")

	for _, bad := range []string{"", "garbage", "-1", "1.5"} {
		d.write(counter, bad)
		_, err = next(t, s, second)
		require.ErrorContains(t, err, "energy1_input", "%q", bad)
	}
	_, err = read(700_000_000_000, second)
	require.ErrorContains(t, err, "it is back", "the interval has no beginning")
	e, err = read(700_007_000_000, second)
	require.NoError(t, err)
	assert.InDelta(t, 7, e, 1e-9)
}

// A driver that is loaded anew numbers its folders anew.
func TestDRMDisappearsAndComesBack(t *testing.T) {
	t.Parallel()
	d := newDRMTree(t, "intel-arc-i915")
	s := d.open()
	second := Load{Elapsed: time.Second}
	_, err := next(t, s, Load{})
	require.NoError(t, err)
	for _, n := range []string{"2", "3", "4"} {
		d.vanish(drmHwmon + "hwmon" + n + "/energy1_input")
	}
	_, err = next(t, s, second)
	require.Error(t, err)
	_, err = next(t, s, second)
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "hwmon2/energy1_input", "the file is named")
	d.write(drmHwmon+"hwmon9/energy1_input", "1000000")
	_, err = next(t, s, second)
	require.Error(t, err, "a folder without a name")
	d.write(drmHwmon+"hwmon9/name", "i915\n")
	_, err = next(t, s, second)
	require.ErrorContains(t, err, "it is back")
	d.write(drmHwmon+"hwmon9/energy1_input", "3000000")
	e, err := next(t, s, second)
	require.NoError(t, err)
	assert.InDelta(t, 2, e, 1e-9)
}

func TestDRMPower(t *testing.T) {
	t.Parallel()
	d := newDRMTree(t, "amd-average-unsupported")
	s := d.open()
	power := drmHwmon + "hwmon1/power1_input"
	read := func(microwatts string, load Load) (float64, error) {
		d.write(power, microwatts)
		return next(t, s, load)
	}
	e, err := read("20000000", Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.Zero(t, e, "the first reading")
	e, err = read("70000000", Load{Elapsed: 2 * time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 140, e, 1e-9)
	_, err = read("70000000", Load{Elapsed: time.Hour, Gap: true})
	require.ErrorContains(t, err, "says nothing")
	e, err = read("0", Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.Zero(t, e, "a card may be switched off")
	for _, bad := range []string{"", "garbage", "-1", "4294967295000000", "99999999999999999999999"} {
		_, err = read(bad, Load{Elapsed: time.Second})
		require.Error(t, err, bad)
	}
	_, err = read("10000000", Load{Elapsed: time.Second})
	require.ErrorContains(t, err, "it is back")
	e, err = read("10000000", Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 10, e, 1e-9)
}

// A meter must not keep awake what it measures.
func TestDRMAsleep(t *testing.T) {
	t.Parallel()
	d := newDRMTree(t, "amd-asleep")
	s := d.open()
	const device = "sys/class/drm/card1/device/"
	second := Load{Elapsed: time.Second}
	for range 2 {
		e, err := next(t, s, second)
		require.NoError(t, err, "the file is not touched: it could not be read")
		assert.Zero(t, e)
	}
	d.write(device+"power/runtime_status", "active\n")
	d.write(device+"hwmon/hwmon1/power1_average", "9000000\n")
	_, err := next(t, s, second)
	require.NoError(t, err)
	e, err := next(t, s, second)
	require.NoError(t, err)
	assert.InDelta(t, 9, e, 1e-9)
	d.write(device+"power/runtime_status", "suspended\n")
	e, err = next(t, s, Load{Elapsed: time.Hour, Gap: true})
	require.NoError(t, err)
	assert.Zero(t, e)
}

// An APU's energy is the CPU's: it is no device of the sensor.
func TestDRMLeavesOutTheAPU(t *testing.T) {
	t.Parallel()
	s := newDRMTree(t, "amd-apu-and-discrete").open()
	r, err := s.Read(Load{})
	require.NoError(t, err)
	assert.Equal(t, []GPUReading{{Device: "0000:03:00.0"}}, r)
}

// One card that cannot be read takes nothing from the others, and may come back.
func TestDRMOneOfTwo(t *testing.T) {
	t.Parallel()
	d := newDRMTree(t, "one-of-two-unreadable")
	s := d.open()
	for i := range 3 {
		r, err := s.Read(Load{Elapsed: time.Second})
		require.NoError(t, err)
		require.Len(t, r, 2)
		assert.Equal(t, "0000:03:00.0", r[0].Device)
		assert.ErrorContains(t, r[0].Err, "garbage")
		require.NoError(t, r[1].Err)
		assert.InDelta(t, 7*float64(min(i, 1)), r[1].Energy.Joules(), 1e-9)
	}
	d.write(drmHwmon+"hwmon1/power1_average", "5000000")
	r, err := s.Read(Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.ErrorContains(t, r[0].Err, "it is back")
	r, err = s.Read(Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 5, r[0].Energy.Joules(), 1e-9)
}

func TestDRMRemedy(t *testing.T) {
	t.Parallel()
	denied := func(errno error) error {
		return fmt.Errorf("%w: %w", ErrNoData, errors.Join(errNoMeter, &fs.PathError{Op: "open", Path: "energy1_input", Err: errno}))
	}
	assert.Contains(t, drmRemedy(denied(syscall.EACCES)), "chmod a+r /sys/class/drm/")
	assert.Empty(t, drmRemedy(denied(syscall.EPERM)), "a card that sleeps")
	assert.Empty(t, drmRemedy(denied(syscall.ENOENT)))
}

// FuzzDRMValue feeds the files' numbers: there is no negative energy, whatever they hold.
func FuzzDRMValue(f *testing.F) {
	for _, seed := range [][2]string{{"1", "2"}, {"5", "4"}, {"-5", "4"}, {"", "x"}, {"9223372036854775807", "0"}, {"18446744073709551615", "18446744073709551616"}, {" 7\n", "1e9"}} {
		f.Add(seed[0], seed[1], int64(time.Second), true)
		f.Add(seed[0], seed[1], int64(-1), false)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, first, second string, elapsed int64, counts bool) {
		name := "power1_input"
		if counts {
			name = "energy1_input"
		}
		hwmon := filepath.Join(dir, "hwmon", "hwmon0")
		require.NoError(t, os.RemoveAll(hwmon))
		require.NoError(t, os.MkdirAll(hwmon, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(hwmon, "name"), []byte("xe"), 0o644))
		d := drmDevice{dir: dir, driver: "xe"}
		defer d.close()
		for _, content := range []string{first, second, second} {
			require.NoError(t, os.WriteFile(filepath.Join(hwmon, name), []byte(content), 0o644))
			e, err := d.read(Load{Elapsed: time.Duration(max(0, elapsed))})
			if !(e >= 0) || err != nil && e != 0 || e > drmMaxPower.Over(time.Duration(max(0, elapsed))+time.Second) {
				t.Fatalf("%v J, %v", e, err)
			}
		}
	})
}
