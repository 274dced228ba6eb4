package meter

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCPUModelMachines runs over testdata/cpu: a folder for each kind of machine that has no counters of its own.
// testdata/README.md has the words of the files named "expected".
func TestCPUModelMachines(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	for _, dir := range layouts(t, "cpu") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			root := plant(t, dir)
			m, err := openCPUModel(filepath.Join(root, "proc"), filepath.Join(root, "sys"))
			var better []string
			var checked []string
			for _, words := range expectations(t, dir) {
				key, rest := words[0], words[1]
				checked = append(checked, key)
				if key == "no" {
					assert.Nil(t, m)
					require.ErrorIs(t, err, ErrNoData)
					return
				}
				require.NoError(t, err)
				switch key {
				case "method":
					assert.Equal(t, rest, m.Method())
				case "is":
					assert.Contains(t, m.detail, rest)
				case "threads":
					assert.Equal(t, rest, fmt.Sprint(m.threads))
				case "watts":
					var idle, full float64
					_, err := fmt.Sscan(rest, &idle, &full)
					require.NoError(t, err)
					assert.InDelta(t, idle, watts(t, m, 0), 1e-9)
					assert.InDelta(t, full, watts(t, m, m.threads), 1e-9)
				case "factor":
					assert.Equal(t, rest, fmt.Sprint(m.Bounds().High))
					assert.InDelta(t, 1, m.Bounds().Low*m.Bounds().High, 1e-9)
				case "not":
					method, why, _ := strings.Cut(rest, " ")
					better = append(better, method)
					assert.Contains(t, finding(t, m.passedOver, CPU, method).Detail, why)
				default:
					t.Fatalf("%s/expected: what is %q?", dir, key)
				}
			}
			assert.Subset(t, checked, []string{"method", "is", "threads", "watts", "factor"})
			assert.Len(t, m.passedOver, len(better))
		})
	}
}

// watts is a model's power while so many threads are busy.
func watts(t *testing.T, s Sensor, busy float64) float64 {
	t.Helper()
	e, err := s.Read(Load{Elapsed: time.Hour, Busy: time.Duration(busy * float64(time.Hour))})
	require.NoError(t, err)
	return e.Joules() / 3600
}
