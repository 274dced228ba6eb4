//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// clientProcess is a client that is a process of its own: this test's program once more, see TestClient. It does what
// it reads line by line, and answers each with a line.
type clientProcess struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startClient(t *testing.T, url, experiment string) *clientProcess {
	t.Helper()
	c := &clientProcess{t: t, cmd: exec.Command(os.Args[0], "-test.run=^TestClient$", "-test.v=false")}
	c.cmd.Env = append(os.Environ(), "E2E_CLIENT="+url, "E2E_EXPERIMENT="+experiment)
	var err error
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	c.out = bufio.NewReader(out)
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	return c
}

func (c *clientProcess) pid() int { return c.cmd.Process.Pid }

// does sends a line and returns the answer.
func (c *clientProcess) does(line string) string {
	_, err := fmt.Fprintln(c.in, line)
	require.NoError(c.t, err)
	answer, err := c.out.ReadString('\n')
	require.NoError(c.t, err)
	return strings.TrimSpace(answer)
}

func (c *clientProcess) open() string { return c.does("open") }

func (c *clientProcess) end(s syscall.Signal) {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(s))
	_ = c.cmd.Wait()
}

// TestClient is no test: it is what startClient starts.
func TestClient(t *testing.T) {
	url := os.Getenv("E2E_CLIENT")
	if url == "" {
		t.Skip("it is started by other tests")
	}
	p := &proxy{t: t, url: url}
	post := func(name, body string) []byte {
		code, answer := call(t, http.MethodPost, url+"/api/2.0/mlflow/"+name, body)
		require.Equal(t, http.StatusOK, code, answer)
		return []byte(answer)
	}
	experiment := p.experiment(os.Getenv("E2E_EXPERIMENT"))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, arg, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "open":
			fmt.Println(p.create(experiment))
		case "runs":
			n, err := strconv.Atoi(arg)
			require.NoError(t, err)
			var ids []string
			for range n {
				id := p.create(experiment)
				post("runs/log-metric", fmt.Sprintf(`{"run_id":%q,"key":"loss","value":1,"timestamp":1}`, id))
				ids = append(ids, id)
			}
			b, err := json.Marshal(ids)
			require.NoError(t, err)
			fmt.Println(string(b))
		case "end":
			post("runs/update", finished(arg))
			fmt.Println()
		}
	}
}

// 200 runs at once, of 20 processes: each has its own, and together they have what the sensors read for runs.
func TestTwoHundredRunsAtOnce(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "0")
	p.experiment(t.Name()) // once, and not by all at once
	var wg sync.WaitGroup
	all := make([][]string, 20)
	clients := make([]*clientProcess, len(all))
	for i := range all {
		clients[i] = startClient(t, p.url, t.Name())
		wg.Go(func() { assert.NoError(t, json.Unmarshal([]byte(clients[i].does("runs 10")), &all[i])) })
	}
	wg.Wait()
	assert.EqualValues(t, 200, p.metric("emissions_running_sessions"))
	for i, ids := range all {
		wg.Go(func() {
			for _, id := range ids {
				clients[i].does("end " + id)
			}
		})
	}
	wg.Wait()
	eventually(t, "all figures are in", func() bool { return p.metric("emissions_unwritten_runs") == 0 })
	seen := map[string]bool{}
	var joules float64
	for _, ids := range all {
		require.Len(t, ids, 10)
		for _, id := range ids {
			r := of(t, id)
			assert.Equal(t, "FINISHED", r.Status)
			assert.Equal(t, "measured", r.Tags["emissions.status"])
			assert.Equal(t, "process", r.Tags["emissions.scope"])
			joules += r.Metrics["emissions/energy_kwh"].Value * 3.6e6
			seen[id] = true
		}
	}
	assert.Len(t, seen, 200)
	assert.Zero(t, p.metric("emissions_running_sessions"))
	var metered float64
	for series, v := range p.series() {
		if strings.HasPrefix(series, "emissions_energy_joules_total") && strings.Contains(series, `owner="runs"`) {
			metered += v
		}
	}
	assert.InEpsilon(t, metered, joules, 1e-6, "what all runs have is what was metered for runs")
}
