package mlflow

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
)

//go:embed demo.py
var demoScript string

// demoExperiment is the experiment that the script logs to.
const demoExperiment = "emissions-demo"

// Demo trains the demo's models with the unmodified client; all it is told is the tracking URI, and not to look for it
// behind a proxy that the environment names for the world outside.
func Demo(ctx context.Context, env Environment, trackingURI *url.URL, out io.Writer) error {
	cmd := exec.CommandContext(ctx, env.Python(), "-c", demoScript, demoExperiment)
	here := trackingURI.Hostname() // Python's client takes HTTP_PROXY even to loopback
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+trackingURI.String(), "NO_PROXY="+here, "no_proxy="+here, "GIT_PYTHON_REFRESH=quiet", "MLFLOW_DISABLE_TELEMETRY=true")
	cmd.SysProcAttr = childAttributes()
	runtime.LockOSThread() // its death signal is sent when the thread ends that started it
	defer runtime.UnlockOSThread()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("train the demo's models: %w", err)
	}
	return nil
}

// PrintDemo prints the figures of the demo's latest runs, as the server at serverURI has them, and returns the
// page to open, under pages.
func PrintDemo(ctx context.Context, serverURI, pages *url.URL, out io.Writer) (page, comparison string, err error) {
	c := NewClient(serverURI, "", http.DefaultTransport)
	var experiment struct {
		Experiment struct {
			ID string `json:"experiment_id"`
		} `json:"experiment"`
	}
	if err := c.call(ctx, Caller{}, http.MethodGet, "experiments/get-by-name?experiment_name="+demoExperiment, nil, &experiment); err != nil {
		return "", "", fmt.Errorf("find the demo's experiment: %w", err)
	}
	id := experiment.Experiment.ID
	body, err := json.Marshal(map[string]any{"experiment_ids": []string{id}, "max_results": demoRuns, "order_by": []string{"attributes.start_time DESC"}})
	if err != nil {
		return "", "", err
	}
	var found struct {
		Runs []wireRun `json:"runs"`
	}
	if err := c.call(ctx, Caller{}, http.MethodPost, "runs/search", body, &found); err != nil {
		return "", "", fmt.Errorf("read the demo's runs: %w", err)
	}
	slices.Reverse(found.Runs)
	// Two lines of names, so that a terminal of 80 columns holds the table.
	const row = "%-19s  %8s  %11s  %13s  %16s\n"
	fmt.Fprintln(out)
	fmt.Fprintf(out, row, "", "", "", "accuracy_per_", "emission_per_10_")
	fmt.Fprintf(out, row, "run", "accuracy", "emissions_g", "emission", "inferences")
	fmt.Fprintf(out, row, "", "", "g", "%/g", "g")
	var r Run
	for _, found := range found.Runs {
		r = found.run()
		show := func(key string) string {
			m, ok := r.Metrics[key]
			if !ok {
				return "-"
			}
			return strconv.FormatFloat(m.Value, 'g', 4, 64)
		}
		fmt.Fprintf(out, row, r.Name, show(r.Tags["emissions.accuracy_key"]), show("emissions_g"), show("accuracy_per_emission"), show("emission_per_10_inferences"))
		if s := r.Tags["emissions.status"]; s != "measured" {
			fmt.Fprintf(out, "  %s\n", s)
		}
	}
	fmt.Fprint(out, "\naccuracy_per_emission: test accuracy in % / grams emitted for training.\n"+
		"emission_per_10_inferences: grams emitted for ten predictions.\n")
	fmt.Fprintf(out, "Energy of the CPU by %s, of memory by %s; %s gCO2e/kWh:\n%s.\n",
		r.Tags["emissions.method.cpu"], r.Tags["emissions.method.ram"], r.Tags["emissions.intensity"], r.Tags["emissions.intensity_source"])
	return pages.String() + "/#/experiments/" + id + "/runs", pages.String() + "/emissions/?experiment=" + id, nil
}

// demoRuns is the number of runs that the script makes.
const demoRuns = 4
