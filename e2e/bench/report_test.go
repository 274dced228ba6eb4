//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// report renders codecarbon.md.
func (b *bench) report(rows []row, load string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Beside CodeCarbon\n\nWritten by `E2E_CODECARBON=1 go test ./e2e/bench -run AgainstCodeCarbon -timeout 1h` on %s.\n\n", time.Now().UTC().Format("2 January 2006, 15:04 MST"))
	fmt.Fprintf(&s, "%s; %s; MLflow %s; CodeCarbon with Python %s.\n", cpuName(b.t), runtime.Version(), b.version(), b.packages())
	fmt.Fprintf(&s, "Load average before: %s, after: %s. While CPU energy was counted, processes outside of the comparison used at most %.0f %% of a thread; %d trials that were disturbed by more than %.0f %% were repeated.\n\n",
		load, loadAverage(b.t), 100*b.others, b.repeated, 100*disturbed)
	fmt.Fprintf(&s, `Both tools have their default settings and are measured in turns or at once. CodeCarbon's default is to meter the machine, with
%[1]stracking_mode="process"%[1]s beside it. There is no RAPL on this machine, so both model the CPU, each in its own way
(%[2]s): their joules cannot be compared with each other, only what becomes of
them. CodeCarbon was kept from any network, whose delays would come on top. Each cell is the median, with the smallest
and the largest in brackets; the ratio is CodeCarbon's default by ours.

`, "`", strings.Join(b.methods, "; "))
	s.WriteString("| what | CodeCarbon | in process mode | mlflow-emissions-proxy | ratio |\n|---|--:|--:|--:|--:|\n")
	for _, r := range rows {
		fmt.Fprintf(&s, "| %s%s |", r.what, map[bool]string{true: ", " + r.unit}[r.unit != ""])
		for _, values := range r.by {
			fmt.Fprintf(&s, " %s |", cell(values))
		}
		ratio := "–"
		if len(r.by[2]) > 0 {
			ratio = number(median(r.by[0]) / median(r.by[2]))
		}
		fmt.Fprintf(&s, " %s |\n", ratio)
	}
	s.WriteString(`
![CPU energy of the same run beside none to three busy neighbours](neighbours.svg)

## The same grams

The same joules at the same intensity are the same grams, to 1e-12, but for CodeCarbon's factor from joules to kWh, which it
takes for counters and which is 8e-7 too high. Its own figures for our places:

`)
	kinds := compare(b.t, askCodeCarbon(b.t, []use{}).PerKWh)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&s, "- %s: %s\n", kind, kinds[kind])
	}
	return s.String()
}

func cell(values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s to %s)", number(median(values)), number(slices.Min(values)), number(slices.Max(values)))
}

// number has three digits that count, and no exponent.
func number(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// version asks the server for MLflow's.
func (b *bench) version() string {
	res, err := http.Get(b.server.JoinPath("version").String())
	require.NoError(b.t, err)
	defer res.Body.Close()
	var version bytes.Buffer
	_, err = version.ReadFrom(res.Body)
	require.NoError(b.t, err)
	return version.String()
}

// packages names the versions that CodeCarbon ran with.
func (b *bench) packages() string {
	interpreter, err := python()
	require.NoError(b.t, err)
	out, err := exec.CommandContext(b.t.Context(), interpreter, "-c", `
import platform
from importlib.metadata import version
print(platform.python_version() + ", " + ", ".join(p + " " + version(p) for p in ("codecarbon", "pandas", "numpy", "psutil")))`).Output()
	require.NoError(b.t, err)
	return strings.TrimSpace(string(out))
}

func cpuName(t *testing.T) string {
	info, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	field := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `\s*: (.*)$`).FindSubmatch(info)
		if m == nil {
			return "unknown"
		}
		return string(m[1])
	}
	return fmt.Sprintf("%s (family %s, model %s), %d threads", field("model name"), field("cpu family"), field("model"), runtime.NumCPU())
}

func loadAverage(t *testing.T) string {
	load, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	return strings.Join(strings.Fields(string(load))[:3], ", ")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}
