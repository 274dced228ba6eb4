package carbon

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The metadata services as they answer, to each other's requests too: on a cloud's machine all three clients ask the same
// address.
var metadataServices = map[string]http.HandlerFunc{
	"aws": func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			_, _ = w.Write([]byte("AQAEAHxxexample=="))
		case r.Header.Get("X-aws-ec2-metadata-token") != "AQAEAHxxexample==":
			w.WriteHeader(http.StatusUnauthorized) // version 2 only
		case r.URL.Path == "/latest/meta-data/placement/region":
			_, _ = w.Write([]byte("eu-west-1"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	},
	"gcp": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		switch {
		case r.Host != "metadata.google.internal" && r.Host != "169.254.169.254":
			w.WriteHeader(http.StatusForbidden)
		case r.Header.Get("Metadata-Flavor") != "Google":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.RawQuery != "":
			panic("recursive answers hold secrets")
		case r.URL.Path == "/computeMetadata/v1/instance/zone":
			_, _ = w.Write([]byte("projects/739419398126/zones/europe-west1-b"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	},
	"azure": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "IMDS/150.870.65.1854")
		switch {
		case r.Header.Get("Metadata") != "true" || r.Header.Get("X-Forwarded-For") != "":
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/metadata/instance/compute/location" && r.URL.Query().Get("api-version") != "" && r.URL.Query().Get("format") == "text":
			_, _ = w.Write([]byte("westeurope"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	},
	"a captive portal": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html><body>Sign in to the network</body></html>"))
	},
	"a redirect": func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "elsewhere.example" {
			_, _ = w.Write([]byte("westeurope")) // to whoever follows
			return
		}
		http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
	},
	"an error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	"a region of tomorrow": func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata") == "true" {
			_, _ = w.Write([]byte("moonnorth"))
		}
	},
}

// dialed answers a detector's calls by a local server, and notes what it really calls.
func dialed(t *testing.T, handler http.Handler) (dial func(context.Context, string, string) (net.Conn, error), called func() []string) {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	var mu sync.Mutex
	var addresses []string
	return func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			addresses = append(addresses, network+" "+address)
			mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
		}, func() []string {
			mu.Lock()
			defer mu.Unlock()
			return addresses
		}
}

func TestEachCloudsMetadataServiceTellsTheRegion(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"aws": "aws:eu-west-1", "gcp": "gcp:europe-west1", "azure": "azure:westeurope",
		"a captive portal": "", "a redirect": "", "an error": "", "a region of tomorrow": "azure:moonnorth",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dial, called := dialed(t, metadataServices[name])
			region := Detector{Sysfs: t.TempDir(), Dial: dial}.Detect(context.Background())
			assert.Equal(t, want, region)
			assert.NotEmpty(t, called())
			for _, a := range called() {
				assert.Equal(t, "tcp 169.254.169.254:80", a, "nothing but the link-local address is called")
			}
		})
	}
	assert.Equal(t, "gcp:europe-west1", Here("gcp:europe-west1").Code)
	unknown := Here("azure:moonnorth")
	assert.Equal(t, "world", unknown.Code)
	assert.Contains(t, unknown.Source, "since azure:moonnorth is in no table")
}

// What the firmware says needs no network: then one cloud is asked instead of three.
func TestTheFirmwareSaysWhomToAsk(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"aws":   {"sys_vendor": "Amazon EC2\n", "product_name": "m5.large\n"},
		"gcp":   {"sys_vendor": "Google\n", "product_name": "Google Compute Engine\n"},
		"azure": {"sys_vendor": "Microsoft Corporation\n", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sysfs := t.TempDir()
			dir := filepath.Join(sysfs, "class/dmi/id")
			require.NoError(t, os.MkdirAll(dir, 0o755))
			for file, text := range files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
			}
			var others atomic.Int64
			dial, _ := dialed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if (r.Header.Get("Metadata") != "") != (name == "azure") || (r.Header.Get("Metadata-Flavor") != "") != (name == "gcp") {
					others.Add(1)
				}
				metadataServices[name](w, r)
			}))
			assert.NotEmpty(t, Detector{Sysfs: sysfs, Dial: dial}.Detect(context.Background()))
			assert.Zero(t, others.Load(), "the other clouds' services were asked")
		})
	}
	xen := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(xen, "class/dmi/id"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(xen, "class/dmi/id/bios_version"), []byte("4.11.amazon\n"), 0o644))
	assert.Equal(t, "aws", Detector{Sysfs: xen}.hint())
	hyperV := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(hyperV, "class/dmi/id"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(hyperV, "class/dmi/id/sys_vendor"), []byte("Microsoft Corporation\n"), 0o644))
	assert.Empty(t, Detector{Sysfs: hyperV}.hint(), "a Hyper-V machine at home is not Azure's")
}

// Where nobody answers, a link-local packet is lost without a word: start-up must not hang on it.
func TestAMachineInNoCloudStartsSoon(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context, _, _ string) (net.Conn, error) {
		deadline, ok := ctx.Deadline()
		assert.True(t, ok)
		assert.LessOrEqual(t, time.Until(deadline), 300*time.Millisecond)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	assert.Empty(t, Detector{Sysfs: t.TempDir(), Dial: hangs}.Detect(context.Background()))
	silent, _ := dialed(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	assert.Empty(t, Detector{Sysfs: t.TempDir(), Dial: silent}.Detect(context.Background()))
}

// A proxy from the environment would answer for its own machine, or log where we are.
func TestMetadataIsAskedWithoutAnHTTPProxy(t *testing.T) {
	var asked atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	dial, _ := dialed(t, metadataServices["aws"])
	assert.Equal(t, "aws:eu-west-1", Detector{Sysfs: t.TempDir(), Dial: dial}.Detect(context.Background()))
	assert.False(t, asked.Load())
}
