//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The fault table: what goes wrong, and what the run has in the end, on a machine whose energy the test gives out. Each
// ends with the client's answer as it is without the proxy, and the run's energy to 1 %, or a status that says what is
// missing. (That the clock is set back is tested where there is one to set: TestTheWallClockIsSetBack in meter,
// TestStepsNeverGoBack in proxy.)
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*testing.T){
		"SIGKILL of the proxy in the middle of a run":         killProxy,
		"SIGKILL of the proxy again and again":                killProxyOften,
		"the proxy is stopped and started in the middle":      stopProxy,
		"SIGKILL of the client":                               func(t *testing.T) { endClient(t, syscall.SIGKILL) },
		"SIGTERM of the client":                               func(t *testing.T) { endClient(t, syscall.SIGTERM) },
		"SIGKILL of the client while the proxy is down":       killClientWhileDown,
		"MLflow is down at create":                            downAtCreate,
		"MLflow is down during the run":                       downDuring,
		"MLflow is down at the end":                           downAtTheEnd,
		"MLflow takes no figures at the end":                  noFigures,
		"MLflow takes no figures, and the proxy is killed":    noFiguresThenKilled,
		"MLflow takes 30 s for the end":                       slowAtTheEnd,
		"the connection is reset in the middle of the answer": resetAnswer,
		"the disk is full":                                    fullDisk,
		"the state folder becomes read-only":                  readOnlyFolder,
		"the sensor fails from one sample to the next":        failingSensor,
		"the state file is damaged":                           damagedState,
		"1,000 retries of the same update":                    thousandRetries,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault(t)
		})
	}
}

func killProxy(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	p := startProxy(t, f.args("--state-dir", dir)...)
	f.spend(os.Getpid(), 500) // nobody's yet
	id := p.open()
	f.spend(os.Getpid(), 100)
	keeps(t, dir, id)
	f.spend(os.Getpid(), 200)
	p.kill()
	f.spend(os.Getpid(), 300)
	again := startProxy(t, f.args("--state-dir", dir)...)
	f.spend(os.Getpid(), 400)
	again.finish(id)
	used(t, id, 1000)
	r := of(t, id)
	assert.Equal(t, "FINISHED", r.Status)
	assert.Equal(t, "measured", r.Tags["emissions.status"], "the counters went on")
	assert.Equal(t, "process", r.Tags["emissions.scope"])
}

func killProxyOften(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	p := startProxy(t, f.args("--state-dir", dir)...)
	id := p.open()
	keeps(t, dir, id)
	for range 4 {
		f.spend(os.Getpid(), 100)
		p.kill()
		f.spend(os.Getpid(), 100)
		p = startProxy(t, f.args("--state-dir", dir)...)
		f.spend(os.Getpid(), 100)
	}
	p.finish(id)
	used(t, id, 1200)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

func stopProxy(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	p := startProxy(t, f.args("--state-dir", dir)...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	p.stop()
	used(t, id, 100)
	assert.Contains(t, of(t, id).Tags["emissions.status"], "the proxy was stopped while the run went on")
	f.spend(os.Getpid(), 200)
	again := startProxy(t, f.args("--state-dir", dir)...)
	again.finish(id)
	used(t, id, 300)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

// client starts a client of its own that opens a run and waits.
func (p *proxy) client(f *fixture) (id string, cmd *clientProcess) {
	p.t.Helper()
	c := startClient(p.t, p.url, p.t.Name())
	f.add(c.pid())
	return c.open(), c
}

func endClient(t *testing.T, s syscall.Signal) {
	f := newFixture(t)
	p := startProxy(t, f.args()...)
	id, c := p.client(f)
	f.spend(c.pid(), 300)
	p.meters(300)
	c.end(s)
	f.end(c.pid())
	f.spend(0, 5000)
	used(t, id, 300)
	f.spend(0, 5000)
	used(t, id, 300)
	r := of(t, id)
	assert.Equal(t, "RUNNING", r.Status, "that is the client's business")
	assert.Equal(t, "measured", r.Tags["emissions.status"])
	assert.Zero(t, p.metric("emissions_running_sessions"))
	p.finish(id)
	assert.Equal(t, r.Metrics["emissions/energy_kwh"], of(t, id).Metrics["emissions/energy_kwh"])
}

func killClientWhileDown(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	p := startProxy(t, f.args("--state-dir", dir)...)
	id, c := p.client(f)
	f.spend(c.pid(), 100)
	p.meters(100)
	p.stop()
	f.spend(c.pid(), 100)
	c.end(syscall.SIGKILL)
	f.end(c.pid())
	p = startProxy(t, f.args("--state-dir", dir)...)
	eventually(t, "its metering has ended", func() bool { return p.metric("emissions_running_sessions") == 0 })
	eventually(t, "it says what is missing", func() bool {
		return strings.Contains(of(t, id).Tags["emissions.status"], "a process of it ended, and what it used until then is not known")
	})
	used(t, id, 100)
	assert.Regexp(t, `^partial: cpu covered for [\d.]+ % of the time`, of(t, id).Tags["emissions.status"])
}

func downAtCreate(t *testing.T) {
	f, b := newFixture(t), startBetween(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url())...)
	b.goAway()
	code, _ := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/create", `{"experiment_id":"0"}`)
	assert.Equal(t, http.StatusBadGateway, code)
	f.spend(os.Getpid(), 500)
	b.comeBack()
	id := p.open()
	f.spend(os.Getpid(), 100)
	p.finish(id)
	used(t, id, 100)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

func downDuring(t *testing.T) {
	f, b := newFixture(t), startBetween(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url(), "--log-interval", "1s")...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	b.goAway()
	code, _ := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/log-metric", fmt.Sprintf(`{"run_id":%q,"key":"loss","value":1,"timestamp":1}`, id))
	assert.Equal(t, http.StatusBadGateway, code)
	eventually(t, "the curve is not taken", func() bool { return p.metric(`emissions_figures_total{result="failed"}`) > 0 })
	f.spend(os.Getpid(), 200)
	b.comeBack()
	p.finish(id)
	used(t, id, 300)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

func downAtTheEnd(t *testing.T) {
	f, b := newFixture(t), startBetween(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url())...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	b.goAway()
	code, _ := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/update", finished(id))
	assert.Equal(t, http.StatusBadGateway, code)
	f.spend(os.Getpid(), 100) // it goes on, for the server and for us
	b.comeBack()
	p.finish(id)
	used(t, id, 200)
	assert.Len(t, history(t, id, "emissions/energy_kwh"), 1)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

// refusing is a relay that takes no figures until told to.
func refusing(t *testing.T) (b *between, relent func()) {
	b = startBetween(t)
	b.refuse = func(e event) int {
		if e.isFigures() {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	return b, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.refuse = nil
	}
}

func noFigures(t *testing.T) {
	f := newFixture(t)
	b, relent := refusing(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url())...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	p.finish(id)
	assert.Equal(t, "FINISHED", of(t, id).Status)
	f.spend(os.Getpid(), 5000)
	relent()
	used(t, id, 100)
	b.mu.Lock()
	defer b.mu.Unlock()
	bodies := map[string]bool{}
	for _, e := range b.events {
		if e.isFigures() {
			bodies[e.body] = true
		}
	}
	assert.Len(t, bodies, 1, "the same bytes each time")
}

func noFiguresThenKilled(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	b, relent := refusing(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url(), "--state-dir", dir)...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	p.finish(id)
	keeps(t, dir, `"batch"`)
	p.kill()
	relent()
	startProxyAt(t, nil, f.args("--upstream", b.url(), "--state-dir", dir)...)
	used(t, id, 100)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

func slowAtTheEnd(t *testing.T) {
	f, b := newFixture(t), startBetween(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url())...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	slow := make(chan struct{})
	const delay = 30 * time.Second
	time.AfterFunc(delay, func() { close(slow) }) // this is what is tested
	b.mu.Lock()
	b.hold = func(event) <-chan struct{} { return slow }
	b.mu.Unlock()
	began := time.Now()
	p.finish(id)
	took := time.Since(began)
	assert.GreaterOrEqual(t, took, delay-time.Second)
	assert.Less(t, took, delay+12*time.Second, "2 s are ours, the rest is this machine's")
	assert.Equal(t, "FINISHED", of(t, id).Status)
	used(t, id, 100)
	assert.Len(t, history(t, id, "emissions/energy_kwh"), 1)
}

func resetAnswer(t *testing.T) {
	f, b := newFixture(t), startBetween(t)
	p := startProxyAt(t, nil, f.args("--upstream", b.url())...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	b.mu.Lock()
	b.cut = func(e event) bool { return e.isFinish() }
	b.mu.Unlock()
	answer := func(base string) error {
		res, err := http.Post(base+"/api/2.0/mlflow/runs/update", "application/json", strings.NewReader(finished(id)))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
		return err
	}
	assert.Error(t, answer(b.url()), "without the proxy")
	assert.Error(t, answer(p.url), "and with it")
	b.mu.Lock()
	b.cut = nil
	b.mu.Unlock()
	f.spend(os.Getpid(), 60)
	p.finish(id) // what a client does: it tries again
	used(t, id, 160)
	assert.Zero(t, p.metric("emissions_running_sessions"))
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

// smallDisk mounts a file system of a few pages.
func smallDisk(t *testing.T) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("a disk that is full takes a mount, which this user may not make: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func fullDisk(t *testing.T) {
	f, dir := newFixture(t), smallDisk(t)
	filler := filepath.Join(dir, "filler")
	fill := func() {
		out, err := os.Create(filler)
		require.NoError(t, err)
		defer out.Close()
		for err == nil {
			_, err = out.Write(make([]byte, 4096))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	fill()
	code, _, errs := command(t, nil, "serve", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin-listen", "", "--state-dir", dir)
	assert.Equal(t, 1, code)
	assert.Equal(t, 1, strings.Count(errs, "\n"), errs)
	assert.Contains(t, errs, "--state-dir "+dir)
	require.NoError(t, os.Remove(filler))

	p := startProxy(t, f.args("--state-dir", dir)...)
	fill()
	goesOnWithoutKeeping(t, f, p, func() { require.NoError(t, os.Remove(filler)) })
}

func readOnlyFolder(t *testing.T) {
	f, dir := newFixture(t), smallDisk(t)
	p := startProxy(t, f.args("--state-dir", dir)...)
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=128k"))
	goesOnWithoutKeeping(t, f, p, func() {
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=128k"))
	})
}

func goesOnWithoutKeeping(t *testing.T, f *fixture, p *proxy, mend func()) {
	said := func(what string) int { return strings.Count(strings.Join(p.lines(), "\n"), what) }
	const warning = "running sessions cannot be kept against a crash; they go on in memory"
	for range 3 {
		id := p.open()
		f.spend(os.Getpid(), 100)
		p.finish(id)
		used(t, id, 100)
		assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
	}
	eventually(t, "it is said", func() bool { return said(warning) > 0 })
	assert.Equal(t, 1, said(warning))
	mend()
	p.open()
	eventually(t, "they are kept again", func() bool { return said("kept against a crash again") == 1 })
}

func failingSensor(t *testing.T) {
	f := newFixture(t)
	p := startProxy(t, f.args("--sample-interval", "100ms")...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	p.meters(100)
	said := func(what string) func() bool {
		return func() bool { return strings.Contains(strings.Join(p.lines(), "\n"), what) }
	}
	content, err := os.ReadFile(f.counterFile())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.counterFile(), []byte("garbage"), 0o644))
	eventually(t, "it is said", said("sensor fails"))
	require.NoError(t, os.WriteFile(f.counterFile(), content, 0o644))
	eventually(t, "it is back", said("sensor is back"))
	f.spend(os.Getpid(), 200)
	p.meters(300)
	p.finish(id)
	used(t, id, 300)
	assert.Regexp(t, `^partial: cpu covered for [\d.]+ % of the time \(.*energy_uj`, of(t, id).Tags["emissions.status"])
}

func damagedState(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	p := startProxy(t, f.args("--state-dir", dir)...)
	id := p.open()
	keeps(t, dir, id)
	f.spend(os.Getpid(), 100)
	eventually(t, "there is one from before", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "runs.before"))
		return err == nil && strings.Contains(string(b), id)
	})
	code, _, errs := command(t, nil, "serve", "--upstream", p.url, "--listen", "127.0.0.1:0", "--admin-listen", "", "--state-dir", dir)
	assert.Equal(t, 2, code, "two proxies on one folder")
	assert.Equal(t, 1, strings.Count(errs, "\n"), errs)
	assert.Contains(t, errs, fmt.Sprintf("--state-dir %s is in use by another proxy (pid %d)", dir, p.cmd.Process.Pid))
	p.kill()
	content, err := os.ReadFile(filepath.Join(dir, "runs"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "runs"), content[:len(content)/2], 0o600))
	again := startProxy(t, f.args("--state-dir", dir)...)
	assert.Contains(t, strings.Join(again.lines(), "\n"), "kept sessions cannot be read; the file is put aside")
	again.finish(id)
	used(t, id, 100)
	assert.Equal(t, "measured", of(t, id).Tags["emissions.status"])
}

func thousandRetries(t *testing.T) {
	f := newFixture(t)
	p := startProxy(t, f.args()...)
	id := p.open()
	f.spend(os.Getpid(), 100)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 20 {
		wg.Go(func() {
			for range 50 {
				res, err := http.Post(p.url+"/api/2.0/mlflow/runs/update", "application/json", strings.NewReader(finished(id)))
				code := 0
				if err == nil {
					code = res.StatusCode
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				mu.Lock()
				codes[code]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	assert.Equal(t, map[int]int{200: 1000}, codes)
	f.spend(os.Getpid(), 5000)
	used(t, id, 100)
	assert.Len(t, history(t, id, "emissions/energy_kwh"), 1)
	assert.EqualValues(t, 1, p.metric(`emissions_figures_total{result="written"}`))
}
