package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

var fenced = regexp.MustCompile("(?ms)^```(\\w+)(?: (\\S+))?\n(.*?)^```$")

// sdkPage is docs/from-mlflow-emissions-sdk.md, taken apart.
type sdkPage struct {
	serve     []string          // arguments of the proxy
	exports   []string          // environment variables
	scripts   map[string]string // by name
	equations []string
}

func readSDKPage(t *testing.T) sdkPage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "from-mlflow-emissions-sdk.md"))
	require.NoError(t, err)
	p := sdkPage{scripts: map[string]string{}}
	for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
		switch language, name, block := m[1], m[2], m[3]; language {
		case "python":
			p.scripts[name] = block
		case "text":
			p.equations = strings.Split(strings.TrimSpace(block), "\n")
		case "sh":
			switch command, rest, _ := strings.Cut(strings.TrimSpace(block), " "); command {
			case "mlflow-emissions-proxy":
				p.serve = strings.Fields(rest)
			case "export":
				p.exports = append(p.exports, rest)
			default:
				t.Errorf("the page's command %s is not tested", command)
			}
		default:
			t.Errorf("the page's %s is not tested", language)
		}
	}
	return p
}

// The page's scripts run as they stand on it, but for the addresses, and give the figures that it promises.
func TestSDKPage(t *testing.T) {
	t.Parallel()
	_, upstream, _ := setup(t)
	page := readSDKPage(t)
	require.Len(t, page.scripts, 3)
	require.NotEmpty(t, page.equations)
	args := append(page.serve, "--upstream", upstream.String(), "--listen", "127.0.0.1:0", "--carbon-intensity", fmt.Sprint(intensity))
	for name, check := range map[string]func(*testing.T, sdkPage, mlflow.Run){"before.py": sdkLeftIn, "after.py": sdkTakenOut, "after-the-end.py": sdkTakenOut} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := args
			if name != "before.py" {
				flags = append(flags[:len(flags):len(flags)], "--sdk-names")
			}
			p := startProxyAt(t, nil, flags...)
			path := filepath.Join(t.TempDir(), name)
			local := strings.NewReplacer("http://127.0.0.1:5001", p.url)
			script := local.Replace(page.scripts[name])
			script = strings.ReplaceAll(script, `"digits"`, strconv.Quote(t.Name()))
			script += `
import json, mlflow
print(json.dumps({"run": mlflow.search_runs(experiment_names=[` + strconv.Quote(t.Name()) + `], output_format="list")[0].info.run_id}))
`
			require.NoError(t, os.WriteFile(path, []byte(script), 0o644))
			cmd := p.sdkFile(path)
			cmd.Env = append(cmd.Env, "MLFLOW_TRACKING_URI=") // only the page says where to
			if name != "before.py" {
				cmd.Env = append(cmd.Env, local.Replace(strings.Join(page.exports, " ")))
			}
			id := output(t, cmd)["run"]
			eventually(t, "the figures", func() bool {
				_, there := of(t, id).Metrics["accuracy_per_emission"]
				return there
			})
			check(t, page, of(t, id))
		})
	}
}

// sdkLeftIn checks what the page says of a script with the SDK's calls.
func sdkLeftIn(t *testing.T, _ sdkPage, r mlflow.Run) {
	eventually(t, "the tag says whose ratio it is", func() bool {
		r = of(t, r.ID)
		return r.Tags["emissions.client_metrics"] == "accuracy_per_emission"
	})
	m := figures(t, r)
	assert.InEpsilon(t, m["accuracy_on_test_data"]/m["emissions"], m["accuracy_per_emission"], 1e-9)
	assert.Positive(t, m["emissions_per_10_predictions"])
	t.Logf("the SDK says %.3g g, the proxy %.3g g", m["emissions"], m["emissions_g"])
}

// sdkTakenOut checks the page's equations.
func sdkTakenOut(t *testing.T, page sdkPage, r mlflow.Run) {
	eventually(t, "all figures", func() bool {
		r = of(t, r.ID)
		return r.Metrics["emission_per_10_inferences"].Value > 0 && r.Metrics["accuracy_per_emission"].Value > 0
	})
	figures(t, r)
	for _, equation := range page.equations {
		left, right, ok := strings.Cut(equation, " = ")
		require.True(t, ok, equation)
		assert.InEpsilon(t, value(t, r, right), value(t, r, left), 1e-9, equation)
	}
}

// value works out a sum, or a product, of a run's metrics, its tags and numbers; terms and signs stand between blanks.
func value(t *testing.T, r mlflow.Run, expression string) float64 {
	t.Helper()
	words := strings.Fields(expression)
	v := operand(t, r, words[0])
	for i := 1; i+1 < len(words); i += 2 {
		switch o := operand(t, r, words[i+1]); words[i] {
		case "+":
			v += o
		case "*":
			v *= o
		case "/":
			v /= o
		default:
			t.Fatalf("what is %s in %s?", words[i], expression)
		}
	}
	return v
}

func operand(t *testing.T, r mlflow.Run, name string) float64 {
	t.Helper()
	if m, ok := r.Metrics[name]; ok {
		return m.Value
	}
	if tag, ok := r.Tags[name]; ok {
		name = tag
	}
	v, err := strconv.ParseFloat(name, 64)
	require.NoError(t, err, "neither a metric, nor a tag, nor a number")
	return v
}
