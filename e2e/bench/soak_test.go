//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	soakClients  = 4
	soakPause    = 200 * time.Millisecond // between a client's runs, so that the load is constant and the machine usable
	soakArtifact = 256 << 10
	// What may be more at the end than at the start: connections that are just being opened and closed.
	soakSlack  = 20
	soakMemory = 1.05
	// A run that ended is kept for an hour, for what comes late: after that, as many are dropped as come.
	soakKept = 10 << 10
)

// soak is a load of clients that begin runs, log, move artifacts, end runs, and hang up in the middle of all that.
type soak struct {
	t                           *testing.T
	proxy                       proxy
	runs, requests, hung, wrong atomic.Int64
}

// gauges are what /metrics says of the process at one moment.
type gauges struct {
	at                                         time.Duration
	goroutines, files, resident, heap, running float64
	ended                                      float64 // runs
}

// TestSoak keeps up a constant load on the real server for some time, 10 minutes for the figures in soak.md, and checks that
// goroutines, file descriptors and memory stay what they are.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("E2E_SOAK"))
	if err != nil {
		t.Skip("E2E_SOAK=10m keeps up a load for that time and writes soak.md")
	}
	server := startServer(t)
	s := &soak{t: t, proxy: startProxy(t, server)}
	load := loadAverage(t)
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var group sync.WaitGroup
	for i := range soakClients {
		group.Go(func() { s.client(ctx, i) })
	}
	began := time.Now()
	var seen []gauges
	for tick := time.NewTicker(10 * time.Second); ctx.Err() == nil; {
		select {
		case <-tick.C:
			seen = append(seen, s.read(time.Since(began)))
		case <-ctx.Done():
		}
	}
	group.Wait()
	idle := gauges{}
	require.Eventually(t, func() bool {
		idle = s.read(time.Since(began))
		return idle.running == 0 && idle.files < seen[0].files+soakSlack
	}, time.Minute, time.Second, "no session and no connection is left")

	third := len(seen) / 3
	require.Positive(t, third, "too short")
	first, last := average(seen[third:2*third]), average(seen[len(seen)-third:])
	write(t, "soak.md", s.report(seen, first, last, idle, length, load))
	assert.Zero(t, s.wrong.Load(), "answers other than the server's 200")
	assert.Less(t, last.goroutines, first.goroutines+soakSlack)
	assert.Less(t, last.files, first.files+soakSlack)
	assert.Less(t, last.resident, soakMemory*first.resident+soakKept*(last.ended-first.ended))
}

// client goes from run to run.
func (s *soak) client(ctx context.Context, number int) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	payload := bytes.Repeat([]byte{byte(number)}, soakArtifact)
	for n := 0; ctx.Err() == nil; n++ {
		var created struct {
			Run struct {
				Info struct {
					ID string `json:"run_id"`
				} `json:"info"`
			} `json:"run"`
		}
		if err := json.Unmarshal(s.ask(c, "POST", "/api/2.0/mlflow/runs/create", []byte(`{"experiment_id":"0"}`)), &created); err != nil {
			continue
		}
		id := created.Run.Info.ID
		for step := range 3 {
			s.ask(c, "POST", "/api/2.0/mlflow/runs/log-metric", fmt.Appendf(nil, `{"run_id":%q,"key":"loss","value":%d,"timestamp":%d,"step":%d}`, id, step, step, step))
		}
		if n%10 > 0 { // every tenth waits for its accuracy in vain
			s.ask(c, "POST", "/api/2.0/mlflow/runs/log-batch", fmt.Appendf(nil, `{"run_id":%q,"metrics":[{"key":"test_accuracy","value":0.5,"timestamp":1,"step":0}]}`, id))
		}
		artifact := "/api/2.0/mlflow-artifacts/artifacts/soak/" + strconv.Itoa(number)
		s.ask(c, "PUT", artifact, payload)
		s.ask(c, "GET", artifact, nil)
		finish := fmt.Sprintf(`{"run_id":%q,"status":"FINISHED","end_time":1}`, id)
		switch n % 4 { // hang-ups, of each kind
		case 0:
			s.hangUp("POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-", 0)
		case 1:
			s.hangUp("PUT "+artifact+"-cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nhalf", 0)
		case 2:
			s.hangUp("GET "+artifact+" HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000)
		case 3: // which still ends the run
			s.hangUp("POST /api/2.0/mlflow/runs/update HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(finish))+"\r\n\r\n"+finish, 0)
		}
		s.ask(c, "POST", "/api/2.0/mlflow/runs/update", []byte(finish))
		s.runs.Add(1)
		time.Sleep(soakPause)
	}
}

// ask sends a request and returns the answer to it.
func (s *soak) ask(c *http.Client, method, path string, body []byte) []byte {
	req, err := http.NewRequest(method, s.proxy.url.String()+path, bytes.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return nil
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	s.requests.Add(1)
	res, err := c.Do(req)
	if err != nil {
		s.wrong.Add(1)
		return nil
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.wrong.Add(1)
		s.t.Logf("%s %s: %d %s %v", method, path, res.StatusCode, answer[:min(len(answer), 200)], err)
	}
	return answer
}

// hangUp sends bytes, reads some of the answer, and is gone.
func (s *soak) hangUp(request string, read int64) {
	conn, err := net.Dial("tcp", s.proxy.url.Host)
	if err != nil {
		s.wrong.Add(1)
		return
	}
	_, _ = io.WriteString(conn, request)
	_, _ = io.CopyN(io.Discard, conn, read)
	_ = conn.Close()
	s.hung.Add(1)
}

func (s *soak) read(at time.Duration) gauges {
	s.t.Helper()
	res, err := http.Get(s.proxy.admin + "/metrics")
	require.NoError(s.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	value := func(name string) float64 {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
		require.NotNil(s.t, m, name)
		v, err := strconv.ParseFloat(string(m[1]), 64)
		require.NoError(s.t, err)
		return v
	}
	return gauges{at: at, goroutines: value("go_goroutines"), files: value("process_open_fds"), resident: value("process_resident_memory_bytes"),
		heap: value("go_memstats_heap_alloc_bytes"), running: value("emissions_running_sessions"), ended: float64(s.runs.Load())}
}

func average(all []gauges) (mean gauges) {
	n := float64(len(all))
	for _, g := range all {
		mean.goroutines += g.goroutines / n
		mean.files += g.files / n
		mean.resident += g.resident / n
		mean.heap += g.heap / n
		mean.ended += g.ended / n
	}
	return mean
}

// report renders soak.md.
func (s *soak) report(seen []gauges, first, last, idle gauges, length time.Duration, load string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Soak\n\nWritten by `E2E_SOAK=%s go test ./e2e/bench -run Soak -timeout 1h` on %s.\n\n", length, time.Now().UTC().Format("2 January 2006, 15:04 MST"))
	fmt.Fprintf(&b, "%s; %s; load average before: %s, after: %s, with other work on the machine.\n\n", cpuName(s.t), runtime.Version(), load, loadAverage(s.t))
	fmt.Fprintf(&b, `%d clients go from run to run for %s, on the real server: create, three times log-metric, log-batch with an accuracy (not for every tenth run), an artifact of %d KiB up and down, update; and in each run one more connection that hangs up in the middle: of a header, of an upload, of a download, or
right after the update that ends the run. %d runs, %d requests, %d hang-ups; %d answers other than 200.
Runs that ended are kept for an hour, for what comes late, and ten minutes only add to them: %.1f KiB of resident memory for each, by the two means;
that nothing is left of them then is tested (%s).

| minute | runs | goroutines | descriptors | resident MiB | heap MiB | sessions |
|--:|--:|--:|--:|--:|--:|--:|
`, soakClients, length, soakArtifact>>10, s.runs.Load(), s.requests.Load(), s.hung.Load(), s.wrong.Load(), (last.resident-first.resident)/(last.ended-first.ended)/(1<<10), "`TestEndedRunsLeaveNothing`")
	row := func(name string, g gauges, running string) {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %.1f | %.1f | %s |\n", name, g.ended, g.goroutines, g.files, g.resident/(1<<20), g.heap/(1<<20), running)
	}
	for i, g := range seen {
		if i%6 == 5 {
			row(fmt.Sprintf("%.0f", g.at.Minutes()), g, strconv.FormatFloat(g.running, 'f', -1, 64))
		}
	}
	row("mean of the middle third", first, "")
	row("mean of the last third", last, "")
	row("idle afterwards", idle, strconv.FormatFloat(idle.running, 'f', -1, 64))
	return b.String()
}
