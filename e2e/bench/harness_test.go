//go:build linux

// Package bench compares the program with CodeCarbon, on the same machine and in the same run.
package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mlflow-emissions-proxy/mlflow"
)

// startServer starts the real MLflow, as demo sets it up.
func startServer(t *testing.T) *url.URL {
	t.Helper()
	cache, err := mlflow.CacheDir()
	require.NoError(t, err)
	env, err := mlflow.Setup(t.Context(), cache, nil, os.Stderr)
	require.NoError(t, err)
	s, err := mlflow.StartServer(context.Background(), mlflow.ServerConfig{Command: env.MLflow(), Dir: t.TempDir(), Lean: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop(5 * time.Second) })
	return s.URL()
}

// proxy is a running proxy process, with its defaults.
type proxy struct {
	url   *url.URL
	admin string
	pid   int
}

var listening = regexp.MustCompile(`msg=listening url=(\S+) .*admin=(\S+)`)

func startProxy(t *testing.T, upstream *url.URL) proxy {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "mlflow-emissions-proxy")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../..").CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.Command(program, "serve", "--upstream", upstream.String(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--state-dir", dir)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	p := proxy{pid: cmd.Process.Pid}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			p.url, err = url.Parse(m[1])
			require.NoError(t, err)
			p.admin = m[2]
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return p
		}
	}
	t.Fatal("the proxy ended at its start")
	return p
}

// cpuReading returns what the proxy's sensors have read, in J of CPU energy.
func (p proxy) cpuReading(t *testing.T) float64 {
	t.Helper()
	res, err := http.Get(p.admin + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^emissions_sensor_energy_joules_total\{component="cpu"\} (\S+)$`).FindSubmatch(text)
	require.NotNil(t, m)
	v, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(t, err)
	return v
}

// outcome is what a trainer says of a command.
type outcome struct {
	Run     string
	ImportS float64 `json:"import_s"`
	StartS  float64 `json:"start_s"`
	WallS   float64 `json:"wall_s"`
	CPUS    float64 `json:"cpu_s"`
	StopS   float64 `json:"stop_s"`
	CPUJ    float64 `json:"cpu_j"`
	RAMJ    float64 `json:"ram_j"`
	RAMW    float64 `json:"ram_w"`
	Method  string
}

// trainer is a running testdata/trainer.py.
type trainer struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	stderr  *strings.Builder
	started outcome
}

// startTrainer starts a trainer and waits until it is metered.
func startTrainer(t *testing.T, by string, loaded ...string) *trainer {
	t.Helper()
	tr := launchTrainer(t, by, loaded...)
	tr.started = tr.hear()
	return tr
}

// launchTrainer starts a trainer, which says when it is metered.
func launchTrainer(t *testing.T, by string, loaded ...string) *trainer {
	t.Helper()
	interpreter, err := python()
	require.NoError(t, err)
	script, err := filepath.Abs(filepath.Join("testdata", "trainer.py"))
	require.NoError(t, err)
	tr := &trainer{t: t, stderr: &strings.Builder{}, cmd: exec.CommandContext(t.Context(), interpreter, append([]string{script, by}, loaded...)...)}
	tr.cmd.Dir = t.TempDir() // CodeCarbon writes its table there
	tr.cmd.Env = offline(tr.cmd.Dir)
	tr.cmd.Stderr = tr.stderr
	tr.in, err = tr.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := tr.cmd.StdoutPipe()
	require.NoError(t, err)
	tr.out = bufio.NewScanner(out)
	require.NoError(t, tr.cmd.Start())
	return tr
}

func (tr *trainer) tell(command string, seconds float64) {
	tr.t.Helper()
	_, err := fmt.Fprintln(tr.in, command, seconds)
	require.NoError(tr.t, err)
}

func (tr *trainer) hear() outcome {
	tr.t.Helper()
	var o outcome
	if !tr.out.Scan() {
		_ = tr.cmd.Wait()
		tr.t.Fatalf("the trainer ended: %s", tr.stderr)
	}
	require.NoError(tr.t, json.Unmarshal(tr.out.Bytes(), &o), tr.out.Text())
	return o
}

func (tr *trainer) do(command string, seconds float64) outcome {
	tr.t.Helper()
	tr.tell(command, seconds)
	return tr.hear()
}

// stop ends the metering and the trainer.
func (tr *trainer) stop() outcome {
	tr.t.Helper()
	o := outcome{}
	tr.tell("stop", 0)
	if tr.cmd.Args[2] != "nothing" {
		o = tr.hear()
	}
	require.NoError(tr.t, tr.cmd.Wait(), "%s", tr.stderr)
	return o
}

// startNeighbour starts a process that keeps one thread busy, and returns what ends it.
func startNeighbour(t *testing.T) (pid int, stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	require.NoError(t, cmd.Start())
	return cmd.Process.Pid, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// cpuTime reads a process's CPU time to the nanosecond: what a sampler needs is less than a tick of /proc/PID/stat. The
// clock's number is made from the pid as clock_getcpuclockid(3) does.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	require.NoError(t, unix.ClockGettime(int32(^pid<<3|2), &ts))
	return time.Duration(ts.Nano())
}

// resident returns a process's resident memory in MiB.
func resident(t *testing.T, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(t, m)
	kB, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(t, err)
	return kB / 1024
}

// busy returns the machine's busy CPU time.
func busy(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile("/proc/stat")
	require.NoError(t, err)
	fields := strings.Fields(strings.SplitN(string(stat), "\n", 2)[0])
	var ticks int64
	for _, column := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		n, err := strconv.ParseInt(fields[column], 10, 64)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on all of Linux
}

// readRun reads a run straight from the server.
func readRun(t *testing.T, server *url.URL, id string) mlflow.Run {
	t.Helper()
	r, err := mlflow.NewClient(server, "", http.DefaultTransport).Run(t.Context(), mlflow.Caller{}, id)
	require.NoError(t, err)
	return r
}
