//go:build unix

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// While the sampler stands still, the counters go on, but who came and went is not seen: the run's status says for what
// share of the time it was covered.
func TestMissedReadingsAreSaid(t *testing.T) {
	p := startProxy(t, "--sample-interval", "100ms")
	id, finish := p.hold()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(7 * time.Second) // this is what is tested
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	finish()
	r := of(t, id)
	covered := regexp.MustCompile(`^partial: cpu covered for ([\d.]+) % of the time \(no reading for (\d+) s\)$`).FindStringSubmatch(r.Tags["emissions.status"])
	require.NotNil(t, covered, r.Tags["emissions.status"])
	share, err := strconv.ParseFloat(covered[1], 64)
	require.NoError(t, err)
	missed, err := strconv.ParseFloat(covered[2], 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, missed, 6.0)
	assert.InDelta(t, 100*(1-missed/r.Metrics["emissions/duration_s"].Value), share, 10)
	assert.Positive(t, r.Metrics["emissions_g"].Value)
}

// A sensor's driver that hangs neither keeps clients waiting nor the proxy from ending.
func TestStopWhileASensorHangs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("no /proc to make one like")
	}
	procfs := t.TempDir()
	for _, name := range []string{"stat", "cpuinfo", "uptime", "net"} {
		require.NoError(t, os.Symlink("/proc/"+name, filepath.Join(procfs, name)))
	}
	meminfo := filepath.Join(procfs, "meminfo")
	content, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(meminfo, content, 0o600))
	p := startProxy(t, "--procfs", procfs, "--scope", "machine")
	require.NoError(t, os.Remove(meminfo))
	require.NoError(t, syscall.Mkfifo(meminfo, 0o600)) // who opens it waits for a writer
	began := time.Now()
	id := p.open()
	code, body := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/update", finished(id))
	assert.Equal(t, http.StatusOK, code, body)
	assert.Less(t, time.Since(began), 10*time.Second, "three calls, of which two are watched")
	p.stop()
}
