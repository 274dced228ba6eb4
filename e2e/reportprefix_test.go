package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serverUnderPrefix starts a real MLflow server with --static-prefix and workspaces, and returns its address without the
// prefix.
func serverUnderPrefix(t *testing.T) string {
	t.Helper()
	env, err := environment()
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	cmd := exec.CommandContext(t.Context(), env.MLflow(), "server", "--host", "127.0.0.1", "--port", fmt.Sprint(port), "--workers", "1",
		"--static-prefix", "/mlflow", "--enable-workspaces", "--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true", "GIT_PYTHON_REFRESH=quiet")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	at := fmt.Sprintf("http://127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		res, err := http.Get(at + "/mlflow/health")
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	}, 2*time.Minute, 200*time.Millisecond, "the server with a prefix starts")
	return at
}

// Where MLflow lies below a path, and in workspaces, the page reads the right one and leads to the right place.
func TestReportUnderAStaticPrefix(t *testing.T) {
	t.Parallel()
	setup(t)
	upstream := serverUnderPrefix(t)
	p := startProxyAt(t, nil, "--upstream", upstream, "--static-prefix", "/mlflow")
	base := p.url + "/mlflow" // the clients' tracking URI
	id := experiment(t, base, "of everybody")
	run := trained(t, base, id, architectures[1])
	code, page := call(t, http.MethodGet, p.url+"/emissions/?experiment="+id, "")
	require.Equal(t, 200, code, page)
	assert.Contains(t, page, `href="../mlflow/#/experiments/`+id+`/runs/`+run+`"`)
	assert.Contains(t, page, `<span class="badge measured">`)
	code, ui := call(t, http.MethodGet, p.url+"/mlflow/", "")
	assert.Equal(t, 200, code)
	assert.Contains(t, ui, "MLflow", "where the links lead")

	code, answer := call(t, http.MethodPost, base+"/api/3.0/mlflow/workspaces", `{"name":"team-b"}`)
	require.Equal(t, 201, code, answer)
	code, page = call(t, http.MethodGet, p.url+"/emissions/?workspace=team-b", "")
	require.Equal(t, 200, code)
	assert.NotContains(t, page, "of everybody", "another workspace's")
	code, page = call(t, http.MethodGet, p.url+"/emissions/?workspace=team-b&experiment="+id, "")
	assert.NotEqual(t, 200, code)
	assert.NotContains(t, page, run)

	status, out, errs := command(t, []string{"MLFLOW_TRACKING_URI=" + base}, "report", "of everybody", "--format", "json")
	require.Zero(t, status, errs)
	assert.Contains(t, out, base+"/#/experiments/"+id+"/runs/"+run)
	status, _, errs = command(t, []string{"MLFLOW_TRACKING_URI=" + base, "MLFLOW_WORKSPACE=team-b"}, "report", "of everybody")
	assert.Equal(t, 1, status, errs)
}
