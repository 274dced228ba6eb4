package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// chromium starts a headless browser that takes proxy.example for this machine, and collects what its console shows.
func chromium(t *testing.T) (context.Context, func() []string) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if path, err = exec.LookPath("google-chrome"); err != nil {
			t.Skip("no Chromium")
		}
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1440, 1000),
		chromedp.Flag("host-resolver-rules", "MAP proxy.example 127.0.0.1"), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	// A browser newer than this library sends events that it cannot read, and need not.
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancel)
	var mu sync.Mutex
	var lines []string
	chromedp.ListenTarget(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError {
				var words []string
				for _, a := range e.Args {
					words = append(words, strings.Trim(string(a.Value), `"`)+a.Description)
				}
				lines = append(lines, strings.Join(words, " "))
			}
		case *runtime.EventExceptionThrown:
			lines = append(lines, "exception: "+e.ExceptionDetails.Text)
		}
	})
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), lines...)
	}
}

// visit opens the pages of a run and returns the errors that the console showed, without addresses.
func visit(t *testing.T, base, experiment, run string) []string {
	t.Helper()
	ctx, console := chromium(t)
	u, err := url.Parse(base)
	require.NoError(t, err)
	pages := []struct{ path, shows string }{
		{"/#/experiments/" + experiment + "/runs", "browsed"},
		{"/#/experiments/" + experiment + "/runs/" + run, "browsed"},
		{"/#/experiments/" + experiment + "/runs/" + run + "/model-metrics", "Model metrics"},
		{"/#/experiments/" + experiment + "/runs/" + run + "/artifacts", "browsed"},
		{"/#/models", "Registered Models"},
	}
	for _, page := range pages {
		require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(base+page.path), shows(page.shows)), page.path)
	}
	seen := map[string]bool{}
	for _, line := range console() {
		seen[strings.ReplaceAll(line, u.Host, "HOST")] = true
	}
	var errs []string
	for line := range seen {
		errs = append(errs, line)
	}
	sort.Strings(errs)
	return errs
}

// shows waits until the page has a text in it.
func shows(text string) chromedp.Action {
	return chromedp.Poll(fmt.Sprintf("document.body && document.body.innerText.includes(%q)", text), nil, chromedp.WithPollingTimeout(60*time.Second))
}

// named is a run with figures, with a name to be found by.
func (p *proxy) named() (experiment, run string) {
	p.t.Helper()
	r := of(p.t, p.run("plain")["run"])
	call(p.t, "POST", p.url+api+"runs/update", `{"run_id":"`+r.ID+`","run_name":"browsed"}`)
	return r.ExperimentID, r.ID
}

// MLflow's own pages work through the proxy, under another host name, with no error that the server alone does not show.
func TestPagesInABrowser(t *testing.T) {
	p := startProxy(t, "--allowed-hosts", "127.0.0.1:*,proxy.example:*") // a name of the world that leads to loopback
	_, upstream, _ := setup(t)
	experiment, run := p.named()
	port := p.url[strings.LastIndexByte(p.url, ':'):]
	direct := visit(t, upstream.String(), experiment, run)
	proxied := visit(t, "http://proxy.example"+port, experiment, run)
	for _, line := range proxied {
		assert.Contains(t, direct, line, "an error that the server alone does not show")
	}
	t.Logf("errors of the server's own pages: %q", direct)
}

// rename adds to a run's name on its page. The page draws itself anew whenever metrics come in, which may close a menu
// that is just being opened: so each try is short, and begins with a click again.
func rename(t *testing.T, ctx context.Context, addition string) {
	t.Helper()
	const field = `[data-testid="rename-modal-input"]`
	var err error
	for range 15 {
		try, cancel := context.WithTimeout(ctx, 7*time.Second)
		err = chromedp.Run(try,
			chromedp.Click(`[data-testid="overflow-menu-trigger"]`, chromedp.ByQuery),
			chromedp.Click(`[data-testid="overflow-rename-button"]`, chromedp.ByQuery),
			chromedp.WaitVisible(field, chromedp.ByQuery))
		cancel()
		if err == nil {
			break
		}
		_ = chromedp.Run(ctx, chromedp.KeyEvent(kb.Escape))
	}
	require.NoError(t, err, "the dialogue opens")
	require.NoError(t, chromedp.Run(ctx,
		chromedp.SendKeys(field, addition, chromedp.ByQuery),
		chromedp.Click(`.du-bois-light-modal .du-bois-light-btn-primary`, chromedp.ByQuery)))
}

// A rename done in MLflow's pages goes through, and ends nothing.
func TestRenameInABrowser(t *testing.T) {
	p := startProxy(t, "--log-interval", "0", "--allowed-hosts", "127.0.0.1:*,proxy.example:*") // a name of the world that leads to loopback
	running, finish := p.hold()
	defer finish()
	ctx, _ := chromium(t)
	port := p.url[strings.LastIndexByte(p.url, ':'):]
	base := "http://proxy.example" + port + "/#/experiments/"
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(base+of(t, running).ExperimentID+"/runs/"+running), shows(of(t, running).Name)))
	rename(t, ctx, " renamed in the browser")
	eventually(t, "the new name", func() bool { return strings.Contains(of(t, running).Name, "renamed in the browser") })
	assert.Equal(t, "RUNNING", of(t, running).Status)
	assert.Equal(t, 1.0, p.metric("emissions_running_sessions"))
}

// The README's pictures are of the demo's runs: their comparison, and one of them in MLflow's own pages, wide
// enough for MLflow's assistant to leave room for two columns, with the metrics that are ours, since the page shows fourteen at once.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("E2E_SCREENSHOTS")
	if dir == "" {
		t.Skip("E2E_SCREENSHOTS=DIR takes the README's pictures")
	}
	_, _, program := setup(t)
	since := time.Now().UnixMilli() // the demo's experiment has all runs of earlier demos, too
	demo := exec.CommandContext(t.Context(), program, "demo", "--listen", "127.0.0.1:0", "--admin-listen", "", "--state-dir", t.TempDir(), "--location", "BE")
	demo.Cancel = func() error { return demo.Process.Signal(os.Interrupt) }
	out, err := demo.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, demo.Start())
	t.Cleanup(func() { _ = demo.Wait() })
	var page, comparison string
	for lines := bufio.NewScanner(out); page == "" && lines.Scan(); {
		if _, at, ok := strings.Cut(lines.Text(), "Compare them at "); ok {
			comparison = at
		}
		page = strings.TrimPrefix(regexp.MustCompile(`^Open \S+`).FindString(lines.Text()), "Open ")
	}
	require.NotEmpty(t, page)
	require.NotEmpty(t, comparison)
	ctx, _ := chromium(t)
	var run string
	var png []byte
	require.NoError(t, chromedp.Run(ctx, chromedp.EmulateViewport(1800, 900), chromedp.Navigate(page), shows("neural-network"),
		chromedp.Evaluate(`[...document.querySelectorAll("a")].find(a => a.innerText.includes("neural-network")).href`, &run)))
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(run), shows("emission_per_10_inferences"), shows("emissions.version"),
		chromedp.SendKeys(`input[placeholder="Search metrics"]`, "emission", chromedp.ByQuery), chromedp.Poll(`!document.body.innerText.includes("recall_score")`, nil), chromedp.CaptureScreenshot(&png)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run.png"), png, 0o644))
	for name, of := range map[string]struct {
		width int64
		dark  bool
	}{"page.png": {1440, false}, "page-dark.png": {1440, true}, "page-phone.png": {390, false}} {
		b := open(t, ctx, of.width, of.dark)
		b.do(chromedp.Navigate(comparison + "&sort=-accuracy&filter=" + url.QueryEscape(fmt.Sprintf("attributes.start_time > %d", since))))
		b.until(ready)
		b.do(chromedp.FullScreenshot(&png, 100))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), png, 0o644))
	}
}
