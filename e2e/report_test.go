package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile is a run's name that would do harm as markup, as ECharts' own markup, or by turning the direction of what
// follows it.
const hostile = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'> \"quoted\" 'single' {a|b} \u202eRTL\nsecond line"

// model is a run that the page's tests make.
type model struct {
	name       string
	parameters int
	accuracy   float64
	work       time.Duration // CPU time of its training
}

// architectures are sized and ranked like the image models of the field.
var architectures = []model{
	{"NASNetMobile", 5_326_716, 0.802, 30}, {"MobileNetV2", 3_538_984, 0.823, 20}, {"DenseNet121", 8_062_504, 0.874, 60},
	{"EfficientNetV2B1", 8_212_124, 0.921, 50}, {"ResNet50", 25_636_712, 0.896, 80}, {"ResNet101", 44_707_176, 0.912, 120}, {"ResNet152", 60_419_944, 0.928, 160},
}

// rest calls MLflow's API at base with a body, and returns the answer.
func rest(t *testing.T, base, path string, body any) map[string]any {
	t.Helper()
	b, err := json.Marshal(body)
	require.NoError(t, err)
	code, answer := call(t, http.MethodPost, base+api+path, string(b))
	require.Equal(t, 200, code, answer)
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(answer), &v))
	return v
}

type object = map[string]any

// spin uses so much CPU time, or a little more.
func spin(d time.Duration) {
	x := 1.0
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range 1000 {
			x = math.Sqrt(x + 1)
		}
	}
}

// begin starts a run at base, which is a proxy's address or the server's own.
func begin(t *testing.T, base, experiment, name string, tags ...object) string {
	t.Helper()
	answer := rest(t, base, "runs/create", object{"experiment_id": experiment, "user_id": "ada", "run_name": name, "start_time": time.Now().UnixMilli(), "tags": append([]object{}, tags...)})
	return answer["run"].(object)["info"].(object)["run_id"].(string)
}

func finish(t *testing.T, base, run string) {
	t.Helper()
	rest(t, base, "runs/update", object{"run_id": run, "status": "FINISHED", "end_time": time.Now().UnixMilli()})
}

func logged(t *testing.T, base, run, parameters string, accuracy float64) {
	t.Helper()
	params := []object{}
	if parameters != "" {
		params = append(params, object{"key": "n_params", "value": parameters})
	}
	rest(t, base, "runs/log-batch", object{"run_id": run, "params": params, "tags": []object{},
		"metrics": []object{{"key": "test_accuracy", "value": accuracy, "timestamp": time.Now().UnixMilli(), "step": 0}}})
}

// trained makes a run of a model, with an inference phase.
func trained(t *testing.T, base, experiment string, m model) string {
	t.Helper()
	run := begin(t, base, experiment, m.name)
	spin(m.work * time.Millisecond)
	logged(t, base, run, fmt.Sprint(m.parameters), m.accuracy)
	rest(t, base, "runs/set-tag", object{"run_id": run, "key": "emissions.phase", "value": "inference"})
	spin(m.work * time.Millisecond / 3)
	rest(t, base, "runs/set-tag", object{"run_id": run, "key": "emissions.inferences", "value": "500"})
	finish(t, base, run)
	return run
}

func experiment(t *testing.T, base, name string) string {
	t.Helper()
	return rest(t, base, "experiments/create", object{"name": name})["experiment_id"].(string)
}

// compared are the experiments of the page's tests, made once: real runs that a real proxy metered.
type compared struct {
	images, odd string // experiments: 28 runs that are measured; and 7 of all other kinds
	runs        int
}

func compare(t *testing.T, p *proxy) compared {
	t.Helper()
	_, upstream, _ := setup(t)
	c := compared{images: experiment(t, p.url, t.Name()+" images"), odd: experiment(t, p.url, t.Name()+" odd")}
	for seed := range 4 {
		for _, m := range architectures {
			if seed > 0 {
				m.name = fmt.Sprintf("%s seed %d", m.name, seed)
			}
			m.accuracy += float64(seed*7%5-2) / 400
			trained(t, p.url, c.images, m)
			c.runs++
		}
	}
	run := begin(t, p.url, c.odd, hostile)
	spin(50 * time.Millisecond)
	logged(t, p.url, run, "", 0.81)
	finish(t, p.url, run)
	finish(t, upstream.String(), begin(t, upstream.String(), c.odd, "=HYPERLINK(\"http://evil.example\")")) // not through the proxy
	parent := begin(t, p.url, c.odd, "parent")
	child := begin(t, p.url, c.odd, "child", object{"key": "mlflow.parentRunId", "value": parent})
	spin(80 * time.Millisecond)
	logged(t, p.url, child, "12M", 0.7)
	finish(t, p.url, child)
	finish(t, p.url, parent)
	finish(t, p.url, begin(t, p.url, c.odd, "skipped", object{"key": "emissions.skip", "value": "true"}))
	partial := begin(t, p.url, c.odd, "partly seen")
	spin(60 * time.Millisecond)
	logged(t, p.url, partial, "9000000", 0.93)
	finish(t, p.url, partial)
	rest(t, p.url, "runs/set-tag", object{"run_id": partial, "key": "emissions.status", "value": "partial: gpu covered for 75 % of the time (NVML: the driver was lost)"})
	elsewhere := begin(t, upstream.String(), c.odd, "elsewhere")
	rest(t, upstream.String(), "runs/set-tag", object{"run_id": elsewhere, "key": "emissions.status", "value": "unmeasured: its client 10.0.0.7 is on another machine; run a proxy there"})
	finish(t, upstream.String(), elsewhere)
	c.runs += 7
	return c
}

// tab is a tab of the browser that keeps what went wrong in it, and what it asked for.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	wrong   []string
	address []string
}

// open opens a tab of the browser, of a window that wide.
func open(t *testing.T, window context.Context, width int64, dark bool) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(window)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				for _, a := range e.Args {
					b.wrong = append(b.wrong, "console: "+string(a.Value)+a.Description)
				}
			}
		case *runtime.EventExceptionThrown:
			b.wrong = append(b.wrong, "exception: "+e.ExceptionDetails.Error())
		case *log.EventEntryAdded: // also what the content security policy refused
			if !strings.Contains(e.Entry.Text, "getImageData") { // which is the tests' own
				b.wrong = append(b.wrong, fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL))
			}
		case *network.EventRequestWillBeSent:
			b.address = append(b.address, e.Request.URL)
		}
	})
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	require.NoError(t, chromedp.Run(ctx, network.Enable(), log.Enable(),
		emulation.SetDeviceMetricsOverride(width, 1000, 1, width < 500),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}})))
	return b
}

// do runs actions; each has half a minute.
func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	for i, a := range actions {
		ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
		err := chromedp.Run(ctx, a)
		cancel()
		require.NoError(b.t, err, "action %d; what went wrong in the page: %v", i, b.faults())
	}
}

func (b *tab) faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.wrong...)
}

// eval evaluates a script.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	var v T
	b.do(chromedp.Evaluate(script, &v, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return v
}

// until waits until a script says true, on this page or on the one that it leads to.
func (b *tab) until(script string) {
	b.t.Helper()
	eventually(b.t, script, func() bool {
		var yes bool
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		defer cancel()
		return chromedp.Run(ctx, chromedp.Evaluate("Boolean("+script+")", &yes)) == nil && yes
	})
}

// clean says that nothing went wrong, and that nothing was asked of anybody but the proxy.
func (b *tab) clean(allowed string) {
	b.t.Helper()
	assert.Empty(b.t, b.faults())
	b.mu.Lock()
	defer b.mu.Unlock()
	require.NotEmpty(b.t, b.address)
	for _, a := range b.address {
		assert.True(b.t, strings.HasPrefix(a, allowed), "a request to %s", a)
	}
}

// pixels counts the pixels of a chart that have a colour of the page's palette, or nearly.
func (b *tab) pixels(chart, color string) int {
	b.t.Helper()
	return eval[int](b, fmt.Sprintf(`(() => {
		const css = getComputedStyle(document.documentElement).getPropertyValue("--%s").trim();
		const want = [1, 3, 5].map(i => parseInt(css.slice(i, i + 2), 16));
		let n = 0;
		for (const canvas of document.querySelectorAll("#%s canvas")) {
			const d = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
			for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 100 && want.every((v, k) => Math.abs(d[i + k] - v) < 40)) n++;
		}
		return n;
	})()`, color, chart))
}

const (
	rows  = `[...document.querySelectorAll("#runs tbody tr")]`
	ready = `document.querySelector("#chart-energy canvas") !== null`
)

// column returns what is in a column's cells.
func (b *tab) column(key string) []string {
	b.t.Helper()
	return eval[[]string](b, fmt.Sprintf(rows+`.map(r => r.querySelector('[data-key="%s"]').textContent.trim())`, key))
}

func TestReportPage(t *testing.T) {
	p := startProxy(t, "--log-interval", "1s")
	c := compare(t, p)
	window, _ := chromium(t)
	require.NoError(t, chromedp.Run(window)) // starts it, so that the tests' tabs are of one browser
	page := p.url + "/emissions/"
	both := page + "?experiment=" + c.images + "&experiment=" + c.odd
	images := page + "?experiment=" + c.images

	t.Run("charts are drawn", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(chromedp.Navigate(both))
		b.until(ready)
		assert.Len(t, b.column("name"), c.runs)
		assert.Greater(t, b.pixels("chart-accuracy", "red"), 150, "the Pareto front")
		assert.Greater(t, b.pixels("chart-predictions", "blue"), 2000, "bars")
		assert.Greater(t, b.pixels("chart-energy", "blue"), 2000, "the CPU's part")
		assert.Greater(t, b.pixels("chart-energy", "orange"), 20, "memory's part")
		// Bubbles are translucent: what is drawn in the middle of one is neither paper nor a line.
		filled := eval[int](b, `(() => { const c = document.querySelector("#chart-accuracy canvas"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0;
			for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 100 && d[i + 2] - d[i] > 60) n++; return n; })()`)
		assert.Greater(t, filled, 3000, "bubbles")
		label := eval[string](b, `document.getElementById("chart-accuracy").getAttribute("aria-label")`)
		assert.Contains(t, label, "of 31 runs", "28 images, and of the odd ones those that have both")
		assert.Contains(t, label, "MobileNetV2")
		assert.NotContains(t, label, "partly seen,", "what is partial emitted more than is known, and beats nobody")
		assert.Equal(t, "param:n_params", eval[string](b, `document.querySelector("select[name=size]").value`))
		b.clean(p.url)
	})

	t.Run("figures are the runs' own", func(t *testing.T) {
		code, body := call(t, http.MethodGet, p.url+"/emissions/api/experiments/"+c.images+"/runs", "")
		require.Equal(t, 200, code)
		var answer struct {
			Runs []struct {
				ID        string  `json:"run_id"`
				Emissions float64 `json:"emissions_g"`
				Accuracy  float64 `json:"accuracy_percent"`
				Size      float64 `json:"size"`
				Metering  string  `json:"metering"`
				URL       string  `json:"url"`
			} `json:"runs"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		require.Len(t, answer.Runs, 28)
		for _, r := range answer.Runs {
			own := of(t, r.ID)
			assert.Equal(t, own.Metrics["emissions_g"].Value, r.Emissions)
			assert.InDelta(t, 100*own.Metrics["test_accuracy"].Value, r.Accuracy, 1e-9)
			assert.Equal(t, own.Params["n_params"], fmt.Sprint(int(r.Size)))
			assert.Equal(t, "measured", r.Metering)
			assert.Equal(t, p.url+"/#/experiments/"+c.images+"/runs/"+r.ID, r.URL)
		}
		code, csv := call(t, http.MethodGet, p.url+"/emissions/runs.csv?experiment="+c.odd, "")
		require.Equal(t, 200, code)
		assert.Contains(t, csv, `"'=HYPERLINK(`, "no formula")
		assert.Regexp(t, `(?m)^[0-9a-f]{32},\d+,[0-9a-f]{32},true,child,`, csv, "a nested run is inside its parent")
	})

	t.Run("sort", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(chromedp.Navigate(both))
		b.until(ready)
		sorted := func(order string) {
			t.Helper()
			values := eval[[]float64](b, rows+`.map(r => r.querySelector("[data-key=emissions_g]").dataset.order).filter(v => v !== "").map(Number)`)
			require.Greater(t, len(values), 30)
			for i := 1; i < len(values); i++ {
				if order == "descending" {
					assert.GreaterOrEqual(t, values[i-1], values[i])
				} else {
					assert.LessOrEqual(t, values[i-1], values[i])
				}
			}
			assert.Equal(t, order, eval[string](b, `document.querySelector("#runs th[data-key=emissions_g]").getAttribute("aria-sort")`))
			tail := b.column("emissions_g")
			assert.Equal(t, "–", tail[len(tail)-1], "what is not known comes last")
		}
		const head = `#runs th[data-key=emissions_g] a`
		b.do(chromedp.Click(head, chromedp.ByQuery))
		b.until(`location.search.includes("sort=-emissions_g")`)
		sorted("descending")
		b.do(chromedp.Reload())
		b.until(ready)
		sorted("descending") // by the server
		b.do(chromedp.Focus(head, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
		b.until(`location.search.includes("sort=emissions_g")`)
		sorted("ascending")
		b.clean(p.url)
	})

	t.Run("filter", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(chromedp.Navigate(images))
		b.until(ready)
		b.do(chromedp.SendKeys("input[name=filter]", "metrics.test_accuracy > 0.9"+kb.Enter, chromedp.ByQuery))
		b.until(`location.search.includes("filter=") && ` + ready)
		for _, v := range b.column("accuracy") {
			assert.Greater(t, v, "90.0")
		}
		assert.Len(t, b.column("name"), 13)
		b.clean(p.url)
		b.do(chromedp.Navigate(images + "&filter=" + url.QueryEscape("metrics.nothing > 1")))
		b.until(`document.body.innerText.includes("No run fits this filter")`)
		b.do(chromedp.Navigate(images + "&filter=" + url.QueryEscape("accuracy is good")))
		b.until(`document.body.innerText.includes("MLflow does not understand this filter")`)
		code, said := call(t, http.MethodPost, p.url+api+"runs/search", `{"experiment_ids":["`+c.images+`"],"filter":"accuracy is good"}`)
		require.Equal(t, 400, code)
		var own struct{ Message string }
		require.NoError(t, json.Unmarshal([]byte(said), &own))
		assert.Equal(t, own.Message, eval[string](b, `document.querySelector("#fault p").textContent`), "MLflow's own words")
		assert.Equal(t, "accuracy is good", eval[string](b, `document.querySelector("input[name=filter]").value`))
	})

	t.Run("choose", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(chromedp.Navigate(images))
		b.until(ready)
		ids := eval[[]string](b, rows+`.slice(1, 4).map(r => r.dataset.run)`)
		for _, id := range ids {
			b.do(chromedp.Click(`tr[data-run="`+id+`"] input`, chromedp.ByQuery))
		}
		b.until(`document.querySelector("#summary").innerText.includes("3 of 28")`) // the sums are the server's
		assert.Contains(t, eval[string](b, `document.getElementById("chart-accuracy").getAttribute("aria-label")`), "of 3 runs")
		shared := eval[string](b, `location.href`)
		for _, id := range ids {
			assert.Contains(t, shared, "run="+id)
		}
		b.clean(p.url)

		other := open(t, window, 1440, false)
		other.do(chromedp.Navigate(shared))
		other.until(ready)
		assert.ElementsMatch(t, ids, eval[[]string](other, `[...document.querySelectorAll("input[name=run]:checked")].map(i => i.value)`))
		assert.Contains(t, eval[string](other, `document.getElementById("chart-energy").getAttribute("aria-label")`), "of 3 runs")
		other.do(chromedp.Click("#clear", chromedp.ByQuery))
		other.until(`!location.search.includes("run=") && document.getElementById("chart-energy").getAttribute("aria-label").includes("of 28 runs")`)
		other.clean(p.url)
	})

	t.Run("columns and copy", func(t *testing.T) {
		b := open(t, window, 1440, false)
		require.NoError(t, chromedp.Run(b.ctx, chromedp.ActionFunc(func(ctx context.Context) error {
			return browser.GrantPermissions([]browser.PermissionType{browser.PermissionTypeClipboardReadWrite, browser.PermissionTypeClipboardSanitizedWrite}).Do(cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser))
		})))
		b.do(chromedp.Navigate(page + "?experiment=" + c.odd))
		b.until(ready)
		visible := `document.querySelector("#runs thead [data-key=method]").checkVisibility()`
		require.True(t, eval[bool](b, visible))
		b.do(chromedp.Click(".menu.right summary", chromedp.ByQuery), chromedp.Click(`input[name=col][value=method]`, chromedp.ByQuery), chromedp.KeyEvent(kb.Escape))
		require.False(t, eval[bool](b, visible))
		assert.False(t, eval[bool](b, `document.querySelector(".menu.right").open`), "Escape closes it")
		b.do(chromedp.Reload())
		b.until(ready)
		require.False(t, eval[bool](b, visible), "the address says which columns")
		b.do(chromedp.Click("#copy", chromedp.ByQuery))
		b.until(`document.getElementById("told").textContent.includes("copied")`)
		copied := eval[string](b, `navigator.clipboard.readText()`)
		lines := strings.Split(copied, "\n")
		require.Len(t, lines, 8)
		assert.NotContains(t, lines[0], "Method")
		assert.Contains(t, lines[0], "Emissions")
		assert.Contains(t, copied, "'=HYPERLINK", "no formula")
		for _, line := range lines {
			assert.Equal(t, strings.Count(lines[0], "\t"), strings.Count(line, "\t"))
		}
		b.clean(p.url)
	})

	t.Run("a running run is followed", func(t *testing.T) {
		b := open(t, window, 1440, false)
		live := experiment(t, p.url, "live "+t.Name())
		run := begin(t, p.url, live, "goes on")
		cell := `tr[data-run="` + run + `"] [data-key=emissions_g]`
		eventually(t, "a first value", func() bool { spin(100 * time.Millisecond); return of(t, run).Metrics["emissions_g"].Value > 0 })
		b.do(chromedp.Navigate(page + "?experiment=" + live))
		b.until(`document.querySelector("#chart-live canvas") !== null`)
		assert.Contains(t, b.column("metering")[0], "running")
		first := eval[float64](b, `Number(document.querySelector('`+cell+`').dataset.order)`)
		eval[bool](b, `window.untouched = true`)
		require.Greater(t, first, 0.0)
		eventually(t, "a larger figure", func() bool {
			spin(100 * time.Millisecond)
			return eval[float64](b, `Number(document.querySelector('`+cell+`').dataset.order)`) > first
		})
		// A line and its marks, in the first colour of the palette.
		assert.Greater(t, b.pixels("chart-live", "blue"), 50)
		second := begin(t, p.url, live, "joins")
		b.until(`document.querySelector('tr[data-run="` + second + `"]') !== null`)
		finish(t, p.url, run)
		finish(t, p.url, second)
		b.until(rows + `.length === 2 && ` + rows + `.every(r => r.innerText.includes("measured"))`)
		assert.True(t, eval[bool](b, `window.untouched`), "without a reload")
		assert.True(t, eval[bool](b, `document.getElementById("figure-live").hidden`))
		b.clean(p.url)
	})

	t.Run("a hostile name is text", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(chromedp.Navigate(page + "?experiment=" + c.odd))
		b.until(ready)
		assert.Contains(t, b.column("name"), strings.TrimSpace(hostile))
		assert.NotEqual(t, "owned", eval[string](b, `document.title`))
		assert.Zero(t, eval[int](b, `document.querySelectorAll("main img, main script:not([type='application/json'])").length`))
		assert.Greater(t, b.pixels("chart-energy", "blue"), 500, "it does not keep the charts from being drawn")
		b.clean(p.url)
	})

	t.Run("what is not wholly measured is seen to be", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(chromedp.Navigate(page + "?experiment=" + c.odd))
		b.until(ready)
		all := strings.Join(b.column("metering"), "\n")
		for _, word := range []string{"unmeasured", "another machine", "partial", "driver was lost", "skipped", "unseen", "in parent"} {
			assert.Contains(t, all, word)
		}
		summary := eval[string](b, `document.getElementById("summary").innerText`)
		assert.Contains(t, summary, "3 runs without figures not counted")
		assert.Contains(t, summary, "3 measured, 1 partial, 1 unmeasured, 1 skipped, 1 unseen")
	})

	t.Run("without JavaScript", func(t *testing.T) {
		b := open(t, window, 1440, false)
		b.do(emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(images), chromedp.WaitVisible("#runs tbody tr", chromedp.ByQuery))
		b.do(chromedp.Click("#runs th[data-key=accuracy] a", chromedp.ByQuery), chromedp.WaitVisible(`#runs th[data-key=accuracy][aria-sort=descending]`, chromedp.ByQuery))
		var first string
		b.do(chromedp.Text(`#runs tbody tr:first-child [data-key=name]`, &first, chromedp.ByQuery))
		assert.Contains(t, first, "ResNet152")
	})

	t.Run("fits", func(t *testing.T) {
		for _, width := range []int64{390, 1440} {
			for _, dark := range []bool{false, true} {
				b := open(t, window, width, dark)
				for _, at := range []string{page, both} {
					b.do(chromedp.Navigate(at))
					if at == both {
						b.until(ready)
					}
					assert.LessOrEqual(t, eval[int64](b, `document.documentElement.scrollWidth`), width, "%s does not scroll sideways", at)
					for _, fault := range b.inaccessible() {
						t.Errorf("%d px, dark %v, %s: %s", width, dark, at, fault)
					}
				}
				paper := eval[string](b, `getComputedStyle(document.documentElement).backgroundColor`)
				assert.Equal(t, map[bool]string{false: "rgb(255, 255, 255)", true: "rgb(20, 23, 26)"}[dark], paper)
				assert.Greater(t, b.pixels("chart-energy", "blue"), 1000)
				b.clean(p.url)
			}
		}
	})

	t.Run("states that are empty or wrong", func(t *testing.T) {
		b := open(t, window, 390, false)
		empty := experiment(t, p.url, "empty "+t.Name())
		b.do(chromedp.Navigate(page + "?experiment=" + empty))
		b.until(`document.body.innerText.includes("No runs yet")`)
		b.do(chromedp.Navigate(page + "?experiment=9999999"))
		b.until(`document.body.innerText.includes("No Experiment with id=9999999 exists")`)
		assert.Empty(t, b.inaccessible())
	})
}

// inaccessible returns what axe-core finds to be seriously in the way of people who cannot see, or use no mouse.
func (b *tab) inaccessible() []string {
	b.t.Helper()
	axe, err := os.ReadFile("testdata/axe.min.js")
	require.NoError(b.t, err)
	b.do(chromedp.Evaluate(string(axe), nil))
	return eval[[]string](b, `axe.run().then(r => {
		if (!r.passes.length) throw new Error("axe checked nothing");
		return r.violations.filter(v => v.impact === "serious" || v.impact === "critical").map(v => v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.target + " " + n.failureSummary).join("; "));
	})`)
}
