package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each folder of testdata/acpi is a machine's sysfs; its file "want" has what is read there, how exact, or why nothing.
// (Device names have a hyphen for the kernel's colon, which not all file systems take.)
func TestACPILayouts(t *testing.T) {
	t.Parallel()
	layouts, err := os.ReadDir(filepath.Join("testdata", "acpi"))
	require.NoError(t, err)
	require.NotEmpty(t, layouts)
	for _, layout := range layouts {
		dir := filepath.Join("testdata", "acpi", layout.Name())
		want, err := os.ReadFile(filepath.Join(dir, "want"))
		require.NoError(t, err)
		sysfs := filepath.Join(dir, "sys")
		s, err := openACPI(sysfs)
		got := ""
		if err != nil {
			require.Nil(t, s, layout.Name())
			require.ErrorIs(t, err, ErrNoData, layout.Name())
			got = reason(err)
		} else {
			assert.Equal(t, "acpi", s.Method())
			got = fmt.Sprintf("%s: %.2f to %.2f", s.(*acpiMeter).Detail(), s.Bounds().Low, s.Bounds().High)
		}
		assert.Equal(t, string(want), strings.ReplaceAll(got, sysfs, "/sys")+"\n", layout.Name())
	}
}

// acpiServer is a copy of the layout "server", and its meter.
func acpiServer(t *testing.T) (set func(string), s WallSensor, path string) {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.CopyFS(root, os.DirFS(filepath.Join("testdata", "acpi", "server"))))
	path = filepath.Join(root, "sys", "class", "hwmon", "hwmon1", "power1_average")
	s, err := openACPI(filepath.Join(root, "sys"))
	require.NoError(t, err)
	return func(v string) { require.NoError(t, os.WriteFile(path, []byte(v), 0o644)) }, s, path
}

func TestACPIPower(t *testing.T) {
	t.Parallel()
	set, s, path := acpiServer(t)
	second := Load{Elapsed: time.Second}
	good := func(joules float64, load Load) {
		t.Helper()
		e, err := s.Read(5, load)
		require.NoError(t, err)
		assert.InDelta(t, joules, e.Joules(), 1e-9)
	}
	bad := func(load Load, because string) {
		t.Helper()
		e, err := s.Read(5, load)
		require.ErrorContains(t, err, because)
		require.ErrorContains(t, err, path)
		assert.Zero(t, e)
	}
	good(0, Load{})
	good(262, second)
	set("300000000\n")
	good(600, Load{Elapsed: 2 * time.Second})
	bad(Load{Elapsed: time.Hour, Gap: true}, "says nothing")
	good(300, second)

	for _, v := range []string{"", "garbage", "-1", "0", "4294967295000", "18446744073709550616"} {
		set(v)
		bad(second, "")
		set("100000000")
		bad(second, "it is back")
		good(100, second)
	}
	vanish(t, path)
	bad(second, "")
	bad(second, "no such file")
	set("100000000")
	bad(second, "it is back")
	good(100, second)
}

func TestACPIFirstReadingFails(t *testing.T) {
	t.Parallel()
	set, s, _ := acpiServer(t)
	set("0")
	_, err := s.Read(0, Load{})
	require.Error(t, err)
	set("100000000")
	_, err = s.Read(0, Load{Elapsed: time.Second})
	require.Error(t, err, "the interval has no beginning")
	e, err := s.Read(0, Load{Elapsed: time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 100, e.Joules(), 1e-9)
}

func TestACPIAccuracy(t *testing.T) {
	t.Parallel()
	for text, e := range map[string]float64{"95.0%": 0.05, "99.0%": 0.01, "95.5%": 0.05, "50.0%": 0.5, "90": 0.1,
		"": 0.05, "100.0%": 0.05, "0.0%": 0.05, "1.0%": 0.05, "49.9%": 0.05, "-95.0%": 0.05, "4294967.295%": 0.05, "unknown": 0.05} {
		b := acpiAccuracy(text)
		assert.InDelta(t, 1-e, b.Low, 1e-9, text)
		assert.InDelta(t, 1+e, b.High, 1e-9, text)
	}
}

// FuzzACPI feeds the meter's files: bounds are around 1, and there is no negative energy.
func FuzzACPI(f *testing.F) {
	for _, seed := range [][3]string{{"262000000\n", "1000\n", "95.0%\n"}, {"0", "", ""}, {"-1", "-1", "-1%"}, {"4294967295000", "4294967295", "4294967.295%"},
		{"18446744073709551616", "18446744073709551616", "1e9%"}, {"1e9", "60000", "100.0%"}} {
		f.Add(seed[0], seed[1], seed[2], int64(time.Second))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, power, interval, accuracy string, elapsed int64) {
		for name, content := range map[string]string{"power1_average": power, "power1_average_interval": interval, "power1_accuracy": accuracy} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
		m, err := newACPIMeter(dir)
		if err != nil {
			return
		}
		defer m.close()
		if b := m.Bounds(); !(b.Low > 0 && b.Low < 1 && b.High > 1 && b.High < 2) {
			t.Fatalf("%+v", b)
		}
		for range 2 {
			load := Load{Elapsed: time.Duration(max(0, elapsed))}
			if e, err := m.Read(0, load); err != nil || !(e >= 0) || e > acpiMaxPower.Over(load.Elapsed) {
				t.Fatalf("%v J, %v", e, err)
			}
		}
	})
}
