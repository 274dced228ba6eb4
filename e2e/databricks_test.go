package e2e

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The real Databricks SDK client, onto an upstream that speaks TLS only and demands its token, with a real MLflow server
// behind it.
func TestDatabricks(t *testing.T) {
	t.Parallel()
	_, server, _ := setup(t)
	var mu sync.Mutex
	refused := 0
	var paths []string
	behind := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }}
	workspace := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/.well-known/") || strings.HasPrefix(r.URL.Path, "/oidc/") {
			http.NotFound(w, r)
			return
		}
		if r.Header.Get("Authorization") != "Bearer dapi-secret" {
			mu.Lock()
			refused++
			mu.Unlock()
			http.Error(w, `{"error_code":"UNAUTHENTICATED"}`, http.StatusUnauthorized)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(workspace.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: workspace.Certificate().Raw}), 0o600))
	p := startProxyAt(t, []string{"SSL_CERT_FILE=" + ca}, "--upstream", workspace.URL, "--log-level", "debug")

	cmd := p.python("workspace.py", t.Name())
	cmd.Env = append(cmd.Env, "MLFLOW_TRACKING_URI=databricks", "DATABRICKS_HOST="+p.url, "DATABRICKS_TOKEN=dapi-secret", "HOME="+t.TempDir())
	r := of(t, output(t, cmd)["run"])
	assert.Equal(t, "FINISHED", r.Status)
	m := figures(t, r)
	assert.InEpsilon(t, 50/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
	mu.Lock()
	defer mu.Unlock()
	assert.Zero(t, refused, "our own calls have the caller's credentials")
	assert.NotContains(t, strings.Join(p.lines(), "\n"), "dapi-secret", "a credential is never logged")
}
