// Package e2e tests the real binary between the real MLflow client and the real MLflow server.
package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// intensity is the carbon intensity of all tests' proxies, in gCO2e/kWh.
const intensity = 400.0

var scratch string // removed when the tests end

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "e2e"); err != nil {
		panic(err)
	}
	code := m.Run()
	if sharedServer != nil {
		_ = sharedServer.Stop(5 * time.Second)
	}
	if securedServer != nil {
		_ = securedServer.Stop(5 * time.Second)
	}
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// binary builds the program, once.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "mlflow-emissions-proxy")
	out, err := exec.Command("go", "build", "-o", path, "..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// environment is the private Python environment, the same that demo uses.
var environment = sync.OnceValues(func() (mlflow.Environment, error) {
	cache, err := mlflow.CacheDir()
	if err != nil {
		return mlflow.Environment{}, err
	}
	return mlflow.Setup(context.Background(), cache, nil, os.Stderr)
})

var sharedServer *mlflow.Server

// server is one MLflow server for all tests, each of which has an experiment of its own.
var server = sync.OnceValues(func() (*mlflow.Server, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(scratch, "mlflow")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	sharedServer, err = mlflow.StartServer(context.Background(), mlflow.ServerConfig{Command: env.MLflow(), Dir: dir, Lean: true})
	return sharedServer, err
})

func setup(t *testing.T) (env mlflow.Environment, upstream *url.URL, program string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: end-to-end tests need the real MLflow")
	}
	env, err := environment()
	require.NoError(t, err)
	s, err := server()
	require.NoError(t, err)
	program, err = binary()
	require.NoError(t, err)
	return env, s.URL(), program
}

// proxy is a running proxy process.
type proxy struct {
	t          *testing.T
	url, admin string
	cmd        *exec.Cmd
	mu         sync.Mutex
	log        []string
	exited     chan struct{}
	code       int
}

var listening = regexp.MustCompile(`msg=listening url=(\S+) .*admin=(\S+)`)

// startProxy starts a proxy in front of the shared server, and stops it by SIGTERM when the test ends. Arguments come
// after the usual ones, and win.
func startProxy(t *testing.T, args ...string) *proxy {
	t.Helper()
	_, upstream, _ := setup(t)
	return startProxyAt(t, nil, append([]string{"--upstream", upstream.String()}, args...)...)
}

func startProxyAt(t *testing.T, env []string, args ...string) *proxy {
	t.Helper()
	program, err := binary()
	require.NoError(t, err)
	p := &proxy{t: t, exited: make(chan struct{})}
	usual := []string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--state-dir", t.TempDir()}
	if !slices.Contains(args, "--live") && !slices.Contains(args, "--location") { // over which it wins
		usual = append(usual, "--carbon-intensity", fmt.Sprint(intensity))
	}
	p.cmd = exec.Command(program, append(usual, args...)...)
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = append(os.Environ(), env...)
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			line := lines.Text()
			p.mu.Lock()
			p.log = append(p.log, line)
			if m := listening.FindStringSubmatch(line); m != nil {
				p.url, p.admin = m[1], m[2]
				close(ready)
			}
			p.mu.Unlock()
		}
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the proxy's log:\n%s", strings.Join(p.lines(), "\n"))
		}
	})
	select {
	case <-ready:
	case <-p.exited:
		t.Fatalf("the proxy ended at its start: %v", p.lines())
	case <-time.After(2 * time.Minute):
		t.Fatal("the proxy does not start")
	}
	return p
}

func (p *proxy) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

// stop ends the proxy in good order: exit code 0 within ten seconds.
func (p *proxy) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		if p.code != 0 {
			p.t.Errorf("the proxy ended with exit code %d", p.code)
		}
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		p.t.Error("the proxy did not end within ten seconds")
	}
}

// python prepares a script of testdata, run by the unmodified client.
func (p *proxy) python(script string, args ...string) *exec.Cmd {
	p.t.Helper()
	env, err := environment()
	require.NoError(p.t, err)
	return pythonIn(p.t, env, p.url, script, args...)
}

func pythonIn(t *testing.T, env mlflow.Environment, uri, script string, args ...string) *exec.Cmd {
	t.Helper()
	return pythonFile(t, env, uri, filepath.Join("testdata", script), args...)
}

// pythonFile is pythonIn for a script that lies elsewhere.
func pythonFile(t *testing.T, env mlflow.Environment, uri, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), env.Python(), append([]string{path}, args...)...)
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+uri, "GIT_PYTHON_REFRESH=quiet", "MLFLOW_DISABLE_TELEMETRY=true",
		"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false", "PYTHONWARNINGS=ignore")
	return cmd
}

// output runs a command and returns the JSON that it prints in its last line.
func output(t *testing.T, cmd *exec.Cmd) map[string]any {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s", out, &stderr)
	objects := regexp.MustCompile(`\{.*\}`).FindAll(out, -1)
	require.NotEmpty(t, objects, string(out))
	var v map[string]any
	require.NoError(t, json.Unmarshal(objects[len(objects)-1], &v), string(out))
	return v
}

// run executes a scenario in an experiment of this test, and returns what it prints.
func (p *proxy) run(scenario string, args ...string) map[string]any {
	p.t.Helper()
	return output(p.t, p.python("scenarios.py", append([]string{p.t.Name(), scenario}, args...)...))
}

// of reads a run straight from the server.
func of(t *testing.T, id any) mlflow.Run {
	t.Helper()
	s, err := server()
	require.NoError(t, err)
	r, err := mlflow.NewClient(s.URL(), "", http.DefaultTransport).Run(t.Context(), mlflow.Caller{}, fmt.Sprint(id))
	require.NoError(t, err)
	return r
}

// history reads all values of a metric, oldest first.
func history(t *testing.T, id any, key string) []float64 {
	t.Helper()
	s, err := server()
	require.NoError(t, err)
	res, err := http.Get(s.URL().String() + "/api/2.0/mlflow/metrics/get-history?run_id=" + fmt.Sprint(id) + "&metric_key=" + url.QueryEscape(key))
	require.NoError(t, err)
	defer res.Body.Close()
	var v struct {
		Metrics []struct{ Value float64 }
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&v))
	var values []float64
	for _, m := range v.Metrics {
		values = append(values, m.Value)
	}
	return values
}

// call sends a request with a JSON body and returns the answer.
func call(t *testing.T, method, target, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(answer)
}

// series reads all values of /metrics at one moment, by name and labels.
func (p *proxy) series() map[string]float64 {
	p.t.Helper()
	_, text := call(p.t, http.MethodGet, p.admin+"/metrics", "")
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			v, err := strconv.ParseFloat(line[i+1:], 64)
			require.NoError(p.t, err)
			all[line[:i]] = v
		}
	}
	return all
}

// metric reads one value of /metrics.
func (p *proxy) metric(series string) float64 {
	p.t.Helper()
	v, ok := p.series()[series]
	require.True(p.t, ok, "no %s in /metrics", series)
	return v
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, 50*time.Millisecond, what)
}

// freePort is a port of loopback that nobody listens at now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
