package e2e

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// command runs the program to its end.
func command(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	program, err := binary()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"--location", "Belgum"}, []string{"--location", "Belgum", "BEL"}},
		{[]string{"--carbon-intensity", "-1"}, []string{"--carbon-intensity", "-1", "at least 0"}},
		{[]string{"--carbon-intensity", "much"}, []string{"--carbon-intensity", "much", "number"}},
		{[]string{"--pue", "0.9"}, []string{"--pue", "0.9", "at least 1"}},
		{[]string{"--pue", "NaN"}, []string{"--pue", "at least 1"}},
		{[]string{"--upstream", "ftp://x"}, []string{"--upstream", "ftp://x", "http"}},
		{[]string{"--upstream", "127.0.0.1:5000"}, []string{"--upstream", "127.0.0.1:5000", "http"}},
		{[]string{"--listen", ""}, []string{"--listen", "HOST:PORT"}}, // not any port of all networks
		{[]string{"healthcheck", "--admin-listen", ""}, []string{"--admin-listen", "HOST:PORT"}},
		{[]string{"--listen", "nowhere"}, []string{"--listen", "nowhere", "HOST:PORT"}},
		{[]string{"--sample-interval", "soon"}, []string{"--sample-interval", "soon", "1s"}},
		{[]string{"--log-interval", "-1s"}, []string{"--log-interval", "-1s", "30s"}},
		{[]string{"--unit", "galaxy"}, []string{"--unit", "galaxy", "cgroup"}},
		{[]string{"--wall-slope", "0"}, []string{"--wall-slope", "0", "1.12"}},
		{[]string{"--wall-offset-w", "-1"}, []string{"--wall-offset-w", "-1", "at least 0"}},
		{[]string{"--static-prefix", "mlflow/"}, []string{"--static-prefix", "mlflow/", "/mlflow"}},
		{[]string{"--scope", "planet"}, []string{"--scope", "planet", "machine"}},
		{[]string{"--local-clients", "here"}, []string{"--local-clients", "here", "10.0.0.0/8"}},
		{[]string{"--serving", "127.0.0.1:5883"}, []string{"--serving", "127.0.0.1:5883", "http"}},
		{[]string{"--serving", "http://192.0.2.1:5883"}, []string{"--serving", "http://192.0.2.1:5883", "another machine"}},
		{[]string{"--serving", "http://127.0.0.1:5883", "--serving-run", "a/b"}, []string{"--serving-run", "a/b", "id of a run"}},
		{[]string{"--serving", "http://127.0.0.1:5883", "--serving-listen", ""}, []string{"--serving-listen", "HOST:PORT"}},
		{[]string{"--serving", "http://me:secret@127.0.0.1:5883"}, []string{"--serving: leave the credentials out of http://me:xxxxx@127.0.0.1:5883"}},
		{[]string{"--serving-run", "48b1067b668b47838a1a19dec73e315f"}, []string{"--serving-run", "--serving URL"}},
		{[]string{"--log-level", "loud"}, []string{"--log-level", "loud", "debug, info, warn or error"}},
		{[]string{"--live-zone", "US-CAL-CISO"}, []string{"--live-zone", "--live"}},
		{[]string{"recompute", "--experiment", "x", "--location", "BE", "--live-key-file", "key"}, []string{"--live-key-file", "--live"}},
		{[]string{"--tls-cert", "cert.pem"}, []string{"--tls-cert and --tls-key", "both"}},
		{[]string{"--tls-cert", "none.pem", "--tls-key", "none.key"}, []string{"--tls-cert none.pem", "--tls-key none.key", "no such file"}},
		{[]string{"--upstream", "https://x", "--upstream-cert", "/dev/null", "--upstream-key", "/dev/null"}, []string{"--upstream-cert /dev/null", "PEM"}},
		{[]string{"--upstream", "https://x", "--upstream-ca", "/dev/null"}, []string{"--upstream-ca", "/dev/null", "PEM"}},
		{[]string{"--upstream", "http://x", "--upstream-ca", "ca.pem"}, []string{"--upstream-ca", "https://"}},
		{[]string{"--no-such-flag"}, []string{"--no-such-flag"}},
		{[]string{"no-such-command"}, []string{"no-such-command"}},
	} {
		code, out, errs := command(t, nil, c.args...)
		assert.Equal(t, 2, code, c.args)
		assert.Empty(t, out, c.args)
		assert.Equal(t, 1, strings.Count(errs, "\n"), "one line: %s", errs)
		for _, word := range c.says {
			assert.Contains(t, errs, word)
		}
	}
	code, _, errs := command(t, []string{"EMISSIONS_PUE=0.5"})
	assert.Equal(t, 2, code)
	assert.Contains(t, errs, "--pue")
}

// An upstream that is the proxy itself would send every request round and round.
func TestTheProxyIsNotItsOwnUpstream(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	require.NoError(t, free.Close())
	self, err := os.Hostname()
	require.NoError(t, err)
	for _, listen := range []string{"127.0.0.1", "0.0.0.0", ""} {
		for _, host := range []string{"localhost", "127.0.0.1", "0.0.0.0", self} {
			if host == self && listen == "127.0.0.1" {
				continue // this machine's name leads elsewhere
			}
			code, _, errs := command(t, nil, "--upstream", "http://"+host+":"+port, "--listen", listen+":"+port, "--admin-listen", "", "--state-dir", t.TempDir())
			assert.Equal(t, 2, code)
			assert.Contains(t, errs, "--upstream: http://"+host+":"+port+" is --listen")
		}
	}
	code, _, errs := command(t, nil, "--upstream", "http://[::1]:"+port, "--listen", "[::]:"+port, "--admin-listen", "", "--state-dir", t.TempDir())
	if assert.NotZero(t, code); code == 2 || !strings.Contains(errs, "cannot be reached") { // a machine without IPv6
		assert.Contains(t, errs, "is --listen")
	}
	code, _, errs = command(t, nil, "--upstream", "http://localhost:"+port, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:"+port, "--state-dir", t.TempDir())
	assert.Equal(t, 2, code)
	assert.Contains(t, errs, "is --admin-listen")
}

// So would a scoring server that is the proxy itself.
func TestTheProxyIsNotItsOwnScoringServer(t *testing.T) {
	t.Parallel()
	_, upstream, _ := setup(t)
	for _, listen := range []string{"127.0.0.1", ""} {
		at := freePort(t)
		code, _, errs := command(t, nil, "--upstream", upstream.String(), "--listen", "127.0.0.1:0", "--admin-listen", "", "--state-dir", t.TempDir(),
			"--serving", fmt.Sprintf("http://localhost:%d", at), "--serving-listen", fmt.Sprintf("%s:%d", listen, at))
		assert.Equal(t, 2, code)
		assert.Contains(t, errs, fmt.Sprintf("--serving: http://localhost:%d is this proxy itself", at))
	}
}

// A password in the upstream's URL is refused, and the refusal does not show it.
func TestAPasswordIsNotShown(t *testing.T) {
	t.Parallel()
	const upstream = "http://me:secret@127.0.0.1:5000"
	for _, c := range [][]string{{"serve", "--upstream", upstream}, {"serve"}} {
		code, out, errs := command(t, []string{"EMISSIONS_UPSTREAM=" + upstream}, c...)
		assert.Equal(t, 2, code)
		assert.Contains(t, errs, "--upstream: ")
		assert.Contains(t, errs, "127.0.0.1:5000")
		assert.NotContains(t, out+errs, "secret")
	}
	// Nor where the value is no URL at all, or stands in the wrong place.
	for _, upstream := range []string{"ftp://me:secret@host", "me:secret@host", "http://me:secret@[host", "http://me:sec/secret@host?x", `http://me:"secret secret@host`, "http://me:secret@host:port"} {
		for _, args := range [][]string{{"serve", "--upstream", upstream}, {"serve", "--upstream=" + upstream}, {"serve", upstream}, {"serve", "--upstrean", upstream}, {"serve", "--upstrean=" + upstream}, {"serve"}} {
			code, out, errs := command(t, []string{"EMISSIONS_UPSTREAM=" + upstream}, args...)
			assert.Equal(t, 2, code)
			assert.NotContains(t, out+errs, "secret", args)
		}
	}
}

func TestFaultsAtTheStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	upstream := "http://" + taken.Addr().String()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"taken port":          {[]string{"--upstream", upstream, "--listen", taken.Addr().String()}, "choose another port"},
		"taken admin port":    {[]string{"--upstream", upstream, "--listen", "127.0.0.1:0", "--admin-listen", taken.Addr().String()}, "--admin-listen"},
		"no upstream":         {[]string{"--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin-listen", ""}, "is the MLflow server running there?"},
		"bad state folder":    {[]string{"--upstream", upstream, "--state-dir", filepath.Join(file, "below")}, "--state-dir"},
		"state folder a file": {[]string{"--upstream", upstream, "--state-dir", file}, "--state-dir"},
		"no mlflow on PATH":   {[]string{"--listen", "127.0.0.1:0", "--admin-listen", ""}, "pip install mlflow"},
	} {
		code, _, errs := command(t, []string{"PATH=" + t.TempDir(), "XDG_CACHE_HOME=" + t.TempDir()}, c.args...)
		assert.Equal(t, 1, code, name)
		assert.Equal(t, 1, strings.Count(errs, "\n"), "one line: %s", errs)
		assert.Contains(t, errs, c.says, name)
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	t.Parallel()
	code, out, _ := command(t, nil, "serve", "--help")
	assert.Zero(t, code)
	for _, flag := range []string{"listen", "upstream", "admin-listen", "location", "carbon-intensity", "pue", "scope", "unit", "psys", "wall-slope", "wall-offset-w", "local-clients", "sample-interval",
		"log-interval", "accuracy-metric", "state-dir", "static-prefix", "sysfs", "procfs", "log-level", "log-format",
		"tls-cert", "tls-key", "upstream-ca", "upstream-cert", "upstream-key", "allowed-hosts"} {
		assert.Contains(t, out, "--"+flag)
		assert.Contains(t, out, "EMISSIONS_"+strings.ToUpper(strings.ReplaceAll(flag, "-", "_")))
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	code, out, errs := command(t, nil, "doctor", "--location", "BE")
	assert.Zero(t, code, errs)
	for _, word := range []string{"cpu", "ram", "gpu", "rapl", "nvml", "Our World in Data"} {
		assert.Contains(t, out, word)
	}
}

// On a machine with counters, of which the tree of files is a small one, doctor names what is read of it, and what
// would open the rest.
func TestDoctorOnAnotherMachine(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("counters are read on Linux only")
	}
	sysfs := t.TempDir()
	for name, content := range map[string]string{
		"class/powercap/intel-rapl:0/name":                   "package-0",
		"class/powercap/intel-rapl:0/energy_uj":              "1000",
		"class/powercap/intel-rapl:0/max_energy_range_uj":    "262143328850",
		"class/powercap/intel-rapl:0:0/name":                 "dram",
		"class/powercap/intel-rapl:0:0/energy_uj":            "garbage",
		"class/powercap/intel-rapl:0:0/max_energy_range_uj":  "262143328850",
		"class/powercap/intel-rapl:1/name":                   "psys",
		"class/powercap/intel-rapl:1/energy_uj":              "5000",
		"class/powercap/intel-rapl:1/max_energy_range_uj":    "262143328850",
		"class/hwmon/hwmon3/name":                            "power_meter",
		"class/hwmon/hwmon3/power1_average":                  "95000000",
		"class/hwmon/hwmon3/power1_average_interval":         "1000",
		"class/drm/card0/device/uevent":                      "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0",
		"class/drm/card0/device/hwmon/hwmon4/name":           "amdgpu",
		"class/drm/card0/device/hwmon/hwmon4/power1_average": "55000000",
		"bus/pci/devices/0000:01:00.0/vendor":                "0x10de",
	} {
		path := filepath.Join(sysfs, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content+"\n"), 0o644))
	}
	line := func(out, component, method string) string {
		found := regexp.MustCompile(`(?m)^`+component+` +`+method+` .*$`).FindAllString(out, -1)
		require.Len(t, found, 1, "%s by %s in\n%s", component, method, out)
		return found[0]
	}
	code, out, errs := command(t, nil, "doctor", "--sysfs", sysfs)
	require.Zero(t, code, errs)
	assert.Regexp(t, `yes +x 0\.90 to x 1\.10 +package-0$`, line(out, "cpu", "rapl"))
	assert.Regexp(t, `no +.*intel-rapl:0:0/energy_uj: "garbage" is not a counter`, line(out, "ram", "rapl"))
	assert.Regexp(t, `yes .*0000:03:00\.0 \(power1_average\)`, line(out, "gpu", "amdgpu"))
	assert.Regexp(t, `yes +x 0\.95 to x 1\.05 .*power1_average, averaged over 1s`, line(out, "wall", "acpi"))
	if _, err := os.Stat("/dev/nvidia0"); err != nil {
		assert.Contains(t, out, "gpu by nvml: install NVIDIA's driver", "there is such a card")
	}
	code, out, errs = command(t, nil, "doctor", "--sysfs", sysfs, "--psys", "--wall-offset-w", "57")
	require.Zero(t, code, errs)
	assert.Regexp(t, `yes .* psys$`, line(out, "cpu", "rapl:psys"))
	assert.Regexp(t, `no +inside rapl:psys`, line(out, "ram", "rapl"))
	assert.Regexp(t, `yes .* 1 x components \+ 57 W$`, line(out, "wall", "line"))
}

func TestHealthcheckAndAdmin(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "emissions_running_sessions 0"} {
		code, body := call(t, http.MethodGet, p.admin+path, "")
		assert.Equal(t, 200, code)
		assert.Contains(t, body, want)
	}
	code, _, errs := command(t, nil, "healthcheck", "--admin-listen", strings.TrimPrefix(p.admin, "http://"))
	assert.Zero(t, code, errs)
	// As in a container that listens on all addresses, in a network that has a proxy for the way out.
	_, port, err := net.SplitHostPort(strings.TrimPrefix(p.admin, "http://"))
	require.NoError(t, err)
	code, _, errs = command(t, []string{"HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY="}, "healthcheck", "--admin-listen", "0.0.0.0:"+port)
	assert.Zero(t, code, errs)
	code, _, errs = command(t, nil, "healthcheck", "--admin-listen", "127.0.0.1:1")
	assert.Equal(t, 1, code)
	assert.Contains(t, errs, "not ready")
}

// On SIGTERM what the running run has used so far is in it, and its status is left to the client.
func TestStopInTheMiddleOfARun(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "0")
	id, _ := p.hold()
	eventually(t, "the run is metered", func() bool { return p.metric(`emissions_energy_joules_total{component="cpu",owner="runs"}`) > 0.5 })
	assert.NotContains(t, of(t, id).Metrics, "emissions_g")
	p.stop()
	r := of(t, id)
	assert.Equal(t, "RUNNING", r.Status)
	assert.Greater(t, r.Metrics["emissions_g"].Value, 0.0)
	assert.Contains(t, r.Tags["emissions.status"], "partial: the proxy was stopped")
}

// While a request is in flight, the proxy says that it is not ready; a second signal ends it at once.
func TestDrainAndSecondSignal(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = slow.Serve(l) }()
	t.Cleanup(func() { _ = slow.Close() })
	for _, second := range []bool{false, true} {
		p := startProxyAt(t, nil, "--upstream", "http://"+l.Addr().String())
		answered := make(chan error, 1)
		go func() {
			res, err := http.Get(p.url + "/slow")
			if err == nil {
				_ = res.Body.Close()
			}
			answered <- err
		}()
		eventually(t, "the request is in flight", func() bool { return p.metric(`emissions_requests_total{kind="other"}`) > 0 })
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
		eventually(t, "not ready", func() bool {
			res, err := http.Get(p.admin + "/readyz")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			return res.StatusCode == http.StatusServiceUnavailable
		})
		if second {
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			select {
			case <-p.exited:
				assert.Equal(t, 1, p.code)
				p.code = 0 // as it should be
			case <-time.After(5 * time.Second):
				t.Fatal("the second signal is not heeded")
			}
			assert.Error(t, <-answered)
			continue
		}
		close(release)
		assert.NoError(t, <-answered, "a request in flight ends")
		<-p.exited
		assert.Zero(t, p.code)
		release = make(chan struct{})
	}
	close(release)
}

// Without --upstream the mlflow on PATH runs as a child, and ends with the proxy.
func TestServeStartsItsOwnServer(t *testing.T) {
	t.Parallel()
	env, _, _ := setup(t)
	p := startProxyAt(t, []string{"PATH=" + filepath.Dir(env.MLflow()) + ":" + os.Getenv("PATH"), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"})
	code, body := call(t, http.MethodGet, p.url+"/version", "")
	assert.Equal(t, 200, code)
	assert.Equal(t, "3.17.2", body)
	assert.FileExists(t, filepath.Join(p.cmd.Dir, "mlflow.db"))
	upstream := ""
	for _, line := range p.lines() {
		if _, rest, ok := strings.Cut(line, "upstream="); ok {
			upstream, _, _ = strings.Cut(rest, " ")
		}
	}
	require.NotEmpty(t, upstream)
	assert.Greater(t, len(processesIn(t, p.cmd.Dir)), 2, "the proxy, the server and its worker")
	p.stop()
	_, err := net.DialTimeout("tcp", strings.TrimPrefix(upstream, "http://"), time.Second)
	assert.Error(t, err, "the server ended with the proxy")
	eventually(t, "no process is left", func() bool { return len(processesIn(t, p.cmd.Dir)) == 0 })
}

// Even a proxy that is killed leaves no server behind, which would hold the database.
func TestAKilledProxyLeavesNoServer(t *testing.T) {
	t.Parallel()
	env, _, _ := setup(t)
	p := startProxyAt(t, []string{"PATH=" + filepath.Dir(env.MLflow()) + ":" + os.Getenv("PATH")}) // with its background jobs
	assert.Greater(t, len(processesIn(t, p.cmd.Dir)), 2)
	require.NoError(t, p.cmd.Process.Kill())
	eventually(t, "no process is left", func() bool { return len(processesIn(t, p.cmd.Dir)) == 0 })
	<-p.exited
	assert.Equal(t, -1, p.code, "it was killed")
	p.code = 0 // as it should be
}

// processesIn lists the processes that were started in a folder, as those of a server are, wherever they hang now.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no /proc to find processes in")
	}
	dir, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	require.NoError(t, err)
	var found []string
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && cwd == dir {
			found = append(found, link)
		}
	}
	return found
}

// The environment is there by now, so the demo works without a network, and its client does not go out by a proxy.
func TestDemo(t *testing.T) {
	t.Parallel()
	setup(t)
	offline := []string{"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=", "no_proxy=", "PIP_NO_INDEX=1"}
	code, out, errs := command(t, offline, "demo", "--exit", "--listen", "127.0.0.1:0", "--admin-listen", "", "--state-dir", t.TempDir(), "--location", "BE")
	require.Zero(t, code, "%s\n%s", out, errs)
	for _, name := range []string{"logistic-regression", "random-forest", "neural-network"} {
		assert.Regexp(t, fmt.Sprintf(`(?m)^%s +0\.9\d+ +\S*\d\S* +\S*\d\S* +\S*\d\S*$`, name), out)
	}
	assert.Regexp(t, `(?m)^linear-regression +- +\S*\d\S* +- +-$`, out)
	assert.NotRegexp(t, "partial|unmeasured", out)
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, len(line), 81, line)
	}
	for _, name := range []string{"emissions_g", "accuracy_per_emission", "emission_per_10_inferences", "Open http://127.0.0.1:"} {
		assert.Contains(t, out, name)
	}
}

// The user types what the wall meter shows: here a constant 30 W and a quarter more than the components drew.
func TestCalibrate(t *testing.T) {
	program, err := binary()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "doctor", "--calibrate", "--calibrate-hold", "400ms")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var errs strings.Builder
	cmd.Stderr = &errs
	require.NoError(t, cmd.Start())
	asked := regexp.MustCompile(`components draw ([\d.]+) W\. What does the wall meter show, in W\? $`)
	var said strings.Builder
	least, most := math.Inf(1), 0.0
	for buffer := make([]byte, 4096); ; {
		n, err := out.Read(buffer)
		said.Write(buffer[:n])
		if m := asked.FindStringSubmatch(said.String()); m != nil {
			components, parseErr := strconv.ParseFloat(m[1], 64)
			require.NoError(t, parseErr)
			least, most = min(least, components), max(most, components)
			answer := fmt.Sprintf("%f W\n", 1.25*components+30)
			if !strings.Contains(said.String(), "not a number") {
				answer = "nothing\n"
			}
			_, writeErr := io.WriteString(in, answer)
			require.NoError(t, writeErr)
			said.WriteString(answer)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	if strings.Contains(errs.String(), "is something else running?") {
		t.Skip("the machine was busy with something else")
	}
	require.NoError(t, err, "%s%s", &said, &errs)
	assert.Contains(t, said.String(), "That is not a number of watts")
	flags := regexp.MustCompile(`--wall-slope ([\d.]+) --wall-offset-w ([\d.]+)`).FindStringSubmatch(said.String())
	require.NotNil(t, flags, said.String())
	slope, err := strconv.ParseFloat(flags[1], 64)
	require.NoError(t, err)
	offset, err := strconv.ParseFloat(flags[2], 64)
	require.NoError(t, err)
	// What the components drew is told to 0.01 W, which is much where a busy machine leaves little between the loads.
	tolerance := 1.25*0.01/(most-least) + 0.001
	assert.InDelta(t, 1.25, slope, tolerance, said.String())
	assert.InDelta(t, 30, offset, tolerance*most+0.02, said.String())

	code, _, refused := command(t, nil, "doctor", "--calibrate", "--wall-slope", "1.1")
	assert.Equal(t, 2, code)
	assert.Contains(t, refused, "leave out --wall-slope")
	code, _, refused = command(t, nil, "doctor", "--calibrate", "--calibrate-hold", "20ms")
	assert.Equal(t, 1, code)
	assert.Contains(t, refused, "no reading given")
}
