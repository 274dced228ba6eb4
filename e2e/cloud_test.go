//go:build linux

package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// clouds are the metadata services' answers, as far as we ask.
var clouds = map[string]http.HandlerFunc{
	"aws:eu-west-1": func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
			_, _ = w.Write([]byte("AQAEAHxxexample=="))
		case r.URL.Path == "/latest/meta-data/placement/region" && r.Header.Get("X-aws-ec2-metadata-token") == "AQAEAHxxexample==":
			_, _ = w.Write([]byte("eu-west-1"))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	},
	"gcp:europe-west1": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if r.URL.Path != "/computeMetadata/v1/instance/zone" || r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte("projects/739419398126/zones/europe-west1-b"))
	},
	"azure:westeurope": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metadata/instance/compute/location" || r.Header.Get("Metadata") != "true" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte("westeurope"))
	},
}

// In a network of its own, in which 169.254.169.254 is a local server, the program finds the region of each cloud by
// itself; and does not ask where it is told not to.
func TestCloudDetection(t *testing.T) {
	t.Parallel()
	program, err := binary()
	require.NoError(t, err)
	if exec.Command("unshare", "-rn", "ip", "link", "set", "lo", "up").Run() != nil {
		t.Skip("no network namespace can be made")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-rn", "sh", "-c",
		`ip link set lo up && ip addr add 169.254.169.254/32 dev lo && exec "$0" -test.run '^TestInsideTheCloud$' -test.v`, os.Args[0])
	cmd.Env = append(os.Environ(), "E2E_INSIDE_THE_CLOUD="+program)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "--- PASS: TestInsideTheCloud")
}

// TestInsideTheCloud is TestCloudDetection's other half.
func TestInsideTheCloud(t *testing.T) {
	program := os.Getenv("E2E_INSIDE_THE_CLOUD")
	if program == "" {
		t.Skip("TestCloudDetection runs this in a network of its own")
	}
	listener, err := net.Listen("tcp", "169.254.169.254:80")
	require.NoError(t, err)
	var handler atomic.Pointer[http.HandlerFunc]
	var asked atomic.Int64
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			(*handler.Load())(w, r)
		}))
	}()
	for code, answers := range clouds {
		handler.Store(&answers)
		out, err := exec.CommandContext(t.Context(), program, "doctor", "--sysfs", t.TempDir()).CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Contains(t, string(out), "("+code+")")
	}
	before := asked.Load()
	out, err := exec.CommandContext(t.Context(), program, "doctor", "--sysfs", t.TempDir(), "--no-cloud-detection").CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "world average, since no location is known")
	assert.Equal(t, before, asked.Load())
}
