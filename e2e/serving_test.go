//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startScoring serves a model by MLflow's own scoring server, and returns the port.
func startScoring(t *testing.T, p *proxy, port int, uri string) *exec.Cmd {
	t.Helper()
	env, err := environment()
	require.NoError(t, err)
	cmd := exec.Command(env.MLflow(), "models", "serve", "-m", uri, "--env-manager", "local", "--host", "127.0.0.1", "-p", fmt.Sprint(port))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+p.url, "MLFLOW_DISABLE_TELEMETRY=true",
		"PATH="+filepath.Dir(env.MLflow())+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the server is its child
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the scoring server's log:\n%s", &log)
		}
	})
	return cmd
}

// findsScoring waits until the proxy has found the scoring server, which takes its time to load the model.
func (p *proxy) findsScoring() {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		return strings.Contains(strings.Join(p.lines(), "\n"), "metering predictions of a scoring server")
	}, 3*time.Minute, 50*time.Millisecond)
}

// The real scoring server, scored through the proxy in each format: its predictions are the run's that trained the model, over
// a restart of the proxy as well.
func TestServing(t *testing.T) {
	t.Parallel()
	port, front := freePort(t), freePort(t)
	state := t.TempDir()
	flags := []string{"--serving", fmt.Sprintf("http://127.0.0.1:%d", port), "--serving-listen", fmt.Sprintf("127.0.0.1:%d", front),
		"--log-interval", "1s", "--sample-interval", "200ms", "--state-dir", state}
	p := startProxy(t, flags...) // the scoring server comes later
	trained := p.infer("model")
	id := trained["run"]
	before := figures(t, of(t, id))
	startScoring(t, p, port, fmt.Sprint(trained["uri"]))
	ask := func(contentType, body string) {
		t.Helper()
		res, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/invocations", front), contentType, strings.NewReader(body))
		require.NoError(t, err)
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode, string(answer))
		assert.Contains(t, string(answer), `"predictions"`)
	}
	p.findsScoring()
	large := `{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]` + strings.Repeat(`, [3, 4.000000000000001]`, 59_999) + `]}}` // more than a megabyte
	ask("application/json", large)
	ask("application/json", `{"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}`)
	ask("application/json", `{"instances": [[1, 2], [3, 4], [5, 6]]}`)
	ask("application/json", `{"inputs": [[1, 2]]}`)
	ask("text/csv", "a,b\n1,2\n3,4\n")
	const rows = 60_008
	eventually(t, "the figures while it is served", func() bool { return of(t, id).Tags["emissions.inferences"] == fmt.Sprint(rows) })
	m := inferred(t, id, rows, "serving")
	assert.Equal(t, before["emissions_g"], m["emissions/training_g"])
	assert.Equal(t, before["accuracy_per_emission"], m["accuracy_per_emission"])
	for _, x := range []string{"", "[1]", `{"dataframe_split": {"data": [[1,2],[3,4]]}`} { // refused
		res, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/invocations", front), "application/json", strings.NewReader(x))
		require.NoError(t, err)
		_ = res.Body.Close()
		require.GreaterOrEqual(t, res.StatusCode, 400)
	}

	p.stop()
	p = startProxy(t, flags...)
	p.findsScoring()
	ask("application/json", `{"inputs": [[1, 2], [3, 4]]}`)
	p.stop() // which writes what is left
	again := inferred(t, id, rows+2, "serving")
	assert.Greater(t, again["emissions/inference_g"], m["emissions/inference_g"])
	assert.Equal(t, before["emissions_g"], again["emissions/training_g"])
	assert.NotContains(t, of(t, id).Tags, "emissions.client_metrics")
	assert.Less(t, time.Duration(again["emissions/duration_s"]*1e9)-time.Duration(before["emissions/duration_s"]*1e9), time.Minute)
}
