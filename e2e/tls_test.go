package e2e

import (
	"crypto/tls"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The unmodified client, over TLS and told of its authority by MLflow's own variable, is metered as ever; and a certificate
// that is renewed on disk is the one that the next client sees, with no restart.
func TestTheClientOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	generate := filepath.Join(strings.TrimSpace(string(goroot)), "src", "crypto", "tls", "generate_cert.go")
	renew := func() {
		cmd := exec.CommandContext(t.Context(), "go", "run", generate, "--host", "127.0.0.1", "--ca", "--ecdsa-curve", "P256")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	renew()
	cert := filepath.Join(dir, "cert.pem")
	p := startProxy(t, "--tls-cert", cert, "--tls-key", filepath.Join(dir, "key.pem"))
	require.True(t, strings.HasPrefix(p.url, "https://"), p.url)
	serial := func() string {
		c, err := tls.Dial("tcp", strings.TrimPrefix(p.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, err)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	renew()
	assert.NotEqual(t, first, serial())
	cmd := p.python("scenarios.py", t.Name(), "plain")
	cmd.Env = append(cmd.Env, "MLFLOW_TRACKING_SERVER_CERT_PATH="+cert)
	r := of(t, output(t, cmd)["run"])
	assert.Equal(t, "FINISHED", r.Status)
	figures(t, r)
}
