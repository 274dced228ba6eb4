package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The command's renderings of real runs, and exit codes that a pipeline can decide by.
func TestReportCommand(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	_, upstream, _ := setup(t)
	name := t.Name() + " of models"
	id := experiment(t, p.url, name)
	first := trained(t, p.url, id, architectures[0])
	second := trained(t, p.url, id, architectures[3])
	env := []string{"MLFLOW_TRACKING_URI=" + p.url}
	report := func(args ...string) (int, string, string) {
		t.Helper()
		return command(t, env, append([]string{"report", name}, args...)...)
	}
	emitted := of(t, first).Metrics["emissions_g"].Value + of(t, second).Metrics["emissions_g"].Value

	code, out, errs := report("--sort", "-accuracy")
	require.Zero(t, code, errs)
	lines := strings.Split(out, "\n")
	assert.Contains(t, lines[0], "Accuracy per emission")
	assert.True(t, strings.HasPrefix(lines[1], "EfficientNetV2B1"), out)
	assert.True(t, strings.HasPrefix(lines[2], "NASNetMobile"), out)
	assert.Contains(t, out, "2 runs emitted ")

	code, out, errs = report("--format", "csv")
	require.Zero(t, code, errs)
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	require.NoError(t, err)
	assert.Len(t, records, 3)

	code, out, errs = command(t, nil, "report", id, "--tracking-uri", p.url+"/", "--format", "json", "--run", first) // by the experiment's id
	require.Zero(t, code, errs)
	var document struct {
		Size string
		Runs []struct {
			ID        string  `json:"run_id"`
			Emissions float64 `json:"emissions_g"`
			URL       string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &document))
	require.Len(t, document.Runs, 1)
	assert.Equal(t, of(t, first).Metrics["emissions_g"].Value, document.Runs[0].Emissions)
	assert.Equal(t, p.url+"/#/experiments/"+id+"/runs/"+first, document.Runs[0].URL)
	assert.Equal(t, "param:n_params", document.Size)

	for _, format := range []string{"svg", "png"} {
		for _, plot := range []string{"accuracy", "predictions", "energy"} {
			file := filepath.Join(t.TempDir(), "plot."+format)
			code, out, errs = report("--format", format, "--plot", plot, "-o", file)
			require.Zero(t, code, errs)
			assert.Empty(t, out)
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"svg": "image/svg+xml", "png": "image/png"}[format], map[bool]string{true: "image/svg+xml", false: http.DetectContentType(b)}[strings.Contains(string(b), "<svg")])
		}
	}

	code, _, errs = report("--max-emissions-g", fmt.Sprint(emitted*1.01))
	assert.Zero(t, code, errs)
	code, out, errs = report("--max-emissions-g", fmt.Sprint(emitted*0.99))
	assert.Equal(t, 3, code)
	assert.Contains(t, errs, "over budget: ")
	assert.Contains(t, out, "NASNetMobile", "the table is shown all the same")
	finish(t, upstream.String(), begin(t, upstream.String(), id, "not through the proxy"))
	code, _, errs = report("--max-emissions-g", "1000")
	assert.Equal(t, 4, code, "a run without figures may have emitted anything")
	assert.Contains(t, errs, "1 of 3 runs have no figures")
	code, _, errs = report("--max-emissions-g", "1000", "--filter", "tags.mlflow.runName = 'no such'")
	assert.Equal(t, 4, code, errs)

	code, _, errs = report("--log-to-run", second)
	require.Zero(t, code, errs)
	status, page := call(t, http.MethodGet, upstream.String()+"/get-artifact?path=emissions.html&run_uuid="+second, "")
	assert.Equal(t, 200, status)
	assert.Contains(t, page, "Emissions of "+name)
	assert.Contains(t, page, first)
}

// What is asked wrongly is one clear line, and so is what the server refuses.
func TestReportRefusals(t *testing.T) {
	t.Parallel()
	_, upstream, _ := setup(t)
	uri := "MLFLOW_TRACKING_URI=" + upstream.String()
	name := t.Name() + " x"
	id := experiment(t, upstream.String(), name)
	run := begin(t, upstream.String(), id, "a")
	for _, c := range []struct {
		env  []string
		args []string
		code int
		says string
	}{
		{nil, []string{"Default"}, 2, "--tracking-uri: say where MLflow is"},
		{[]string{"MLFLOW_TRACKING_URI=sqlite:///mlflow.db"}, []string{"Default"}, 2, "is not a server's base URL"},
		{[]string{"MLFLOW_TRACKING_URI=postgresql://me:secret@db/mlflow"}, []string{"Default"}, 2, "is not a server's base URL"},
		{[]string{"MLFLOW_TRACKING_URI=http://me:secret@%zz"}, []string{"Default"}, 2, "is not a URL"},
		{[]string{uri}, nil, 2, "name an experiment"},
		{[]string{uri}, []string{"no such experiment"}, 1, "no such experiment"},
		{[]string{uri}, []string{name, "--filter", "accuracy is good"}, 1, "Invalid"},
		{[]string{uri}, []string{name, "--format", "pdf"}, 2, "--format"},
		{[]string{uri}, []string{name, "--columns", "colour"}, 2, `"colour" is no column`},
		{[]string{uri}, []string{name, "--sort", "-colour"}, 2, `"colour" is no column`},
		{[]string{uri}, []string{name, "--max-emissions-g", "-1"}, 2, "--max-emissions-g"},
		{[]string{uri}, []string{name, "--max-emissions-g", "NaN"}, 2, "--max-emissions-g"},
		{[]string{uri}, []string{name, "--format", "svg"}, 1, "no run has both an accuracy and emissions"},
		{[]string{uri}, []string{name, "--run", "nothing"}, 1, `--run: "nothing" is no run`},
		{[]string{uri}, []string{name, "--size-by", "params"}, 2, "--size-by"},
		{[]string{uri}, []string{name, "--log-to-run", "nothing"}, 1, "--log-to-run"},
		{[]string{"MLFLOW_TRACKING_URI=http://127.0.0.1:1"}, []string{name}, 1, "refused"},
		{[]string{"MLFLOW_TRACKING_URI=http://me:secret@127.0.0.1:1"}, []string{name}, 1, "refused"},
		{[]string{uri, "MLFLOW_TRACKING_SERVER_CERT_PATH=/nowhere"}, []string{name}, 2, "MLFLOW_TRACKING_SERVER_CERT_PATH"},
	} {
		code, _, errs := command(t, append([]string{"MLFLOW_TRACKING_URI="}, c.env...), append([]string{"report"}, c.args...)...)
		assert.Equal(t, c.code, code, "%v %s", c.args, errs)
		assert.Contains(t, errs, c.says)
		assert.NotContains(t, errs, "secret")
		assert.Equal(t, 1, strings.Count(errs, "\n"), "one line: %s", errs)
	}
	finish(t, upstream.String(), run)
}

// The command asks as MLflow's own client would: a name and password before a token.
func TestReportCredentials(t *testing.T) {
	t.Parallel()
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"message":"not you"}`)
	}))
	t.Cleanup(s.Close)
	withUser := strings.Replace(s.URL, "http://", "http://me:secret@", 1)
	for _, c := range []struct {
		uri   string
		env   []string
		basic string
		want  string
	}{
		{s.URL, nil, "", ""},
		{s.URL, []string{"MLFLOW_TRACKING_TOKEN=t"}, "", "Bearer t"},
		{s.URL, []string{"MLFLOW_TRACKING_TOKEN=t", "MLFLOW_TRACKING_USERNAME=ada", "MLFLOW_TRACKING_PASSWORD=p"}, "ada:p", ""},
		{withUser, nil, "me:secret", ""},
		{withUser, []string{"MLFLOW_TRACKING_TOKEN=t"}, "", "Bearer t"},
	} {
		code, _, errs := command(t, append(c.env, "MLFLOW_TRACKING_URI="+c.uri, "MLFLOW_WORKSPACE=team"), "report", "x")
		assert.Equal(t, 1, code)
		assert.Contains(t, errs, "401")
		assert.Contains(t, errs, "not you")
		assert.NotContains(t, errs, "secret")
		r := &http.Request{Header: got}
		if user, password, ok := r.BasicAuth(); ok {
			assert.Equal(t, c.basic, user+":"+password)
		} else {
			assert.Empty(t, c.basic)
			assert.Equal(t, c.want, got.Get("Authorization"))
		}
		assert.Equal(t, "team", got.Get("X-Mlflow-Workspace"))
	}
}

// The HTML file is opened where there is neither a server nor a network.
func TestReportFileInABrowser(t *testing.T) {
	p := startProxy(t)
	id := experiment(t, p.url, t.Name())
	for _, m := range architectures[:3] {
		trained(t, p.url, id, m)
	}
	file := filepath.Join(t.TempDir(), "report.html")
	code, _, errs := command(t, nil, "report", t.Name(), "--tracking-uri", p.url, "--format", "html", "--output", file)
	require.Zero(t, code, errs)
	window, _ := chromium(t)
	require.NoError(t, chromedp.Run(window))
	b := open(t, window, 1440, false)
	b.do(chromedp.Navigate("file://" + file))
	b.until(ready)
	assert.Len(t, b.column("name"), 3)
	assert.Greater(t, b.pixels("chart-predictions", "blue"), 1000)
	b.do(chromedp.Click("#runs th[data-key=emissions_g] a", chromedp.ByQuery))
	b.until(`document.querySelector("#runs th[data-key=emissions_g]").getAttribute("aria-sort") === "descending"`)
	b.do(chromedp.Click("#runs tbody tr input", chromedp.ByQuery))
	b.until(`document.getElementById("chart-energy").getAttribute("aria-label").includes("of 1 run:")`)
	assert.Empty(t, b.inaccessible())
	b.clean("file://" + file)
}
