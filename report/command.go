package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// BudgetError says that runs emitted more than --max-emissions-g allows, or that it cannot be told since one has no figures.
type BudgetError struct {
	Over bool
	error
}

// BadFlag is a fault in what the user asked for.
type BadFlag struct{ error }

// Command is what the command report is asked for, with its flags.
type Command struct {
	Experiments   []string `arg:"" optional:"" name:"experiment" help:"Names or ids of the experiments to compare."`
	TrackingURI   string   `group:"What" env:"EMISSIONS_TRACKING_URI,MLFLOW_TRACKING_URI" placeholder:"URL" help:"The MLflow server or the proxy in front of it; credentials as MLflow's client takes them: MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN."`
	Filter        string   `group:"What" placeholder:"FILTER" help:"Only runs that this filter of MLflow's search finds, for example \"metrics.accuracy > 0.8\"."`
	Runs          []string `name:"run" group:"What" placeholder:"ID" help:"Only these runs; their ids, after commas."`
	Sort          string   `group:"What" placeholder:"COLUMN" help:"Order by a column, for example emissions_g; -emissions_g: the largest first. By default the latest first."`
	Columns       []string `group:"Output" placeholder:"COLUMN" help:"Columns of the table and of the HTML file, after commas; named as in CSV."`
	SizeBy        string   `group:"Output" placeholder:"WHAT" help:"What the bubbles' area shows: param:NAME, metric:NAME or none. By default the number of parameters, by its usual names."`
	Format        string   `group:"Output" default:"table" enum:"table,csv,json,html,svg,png" help:"table, csv, json, html (one file that works offline), svg or png (${default})."`
	Plot          string   `group:"Output" default:"accuracy" enum:"accuracy,predictions,energy" help:"What svg and png show: accuracy against emissions, emissions of 10,000 predictions, or energy by component (${default})."`
	Output        string   `group:"Output" short:"o" placeholder:"FILE" help:"Where to write. By default standard output."`
	LogToRun      string   `group:"Output" placeholder:"ID" help:"Also store the HTML file as the artifact emissions.html of this run."`
	MaxEmissionsG *float64 `group:"Budget" name:"max-emissions-g" placeholder:"G" help:"Exit with 3 if the runs emitted more than this together, with 4 if that cannot be told since one has no figures."`
}

// Run compares the experiments and writes what is asked for to out. getenv has MLflow's own variables, accuracy picks a run's
// accuracy in percent and its key. Errors are a BadFlag, a BudgetError, or of the server.
func (c *Command) Run(ctx context.Context, getenv func(string) string, accuracy func(mlflow.Run) (float64, string, bool), out io.Writer) error {
	if len(c.Experiments) == 0 {
		return BadFlag{errors.New("report: name an experiment, for example: report emissions-demo")}
	}
	base, err := c.trackingURL()
	if err != nil {
		return BadFlag{err}
	}
	if m := c.MaxEmissionsG; m != nil && !(*m >= 0) {
		return BadFlag{fmt.Errorf("--max-emissions-g: %v is not allowed, only grams of at least 0, for example 50", *m)}
	}
	if by := c.SizeBy; by != "" && by != sizeNone && !strings.HasPrefix(by, sizeParam) && !strings.HasPrefix(by, sizeMetric) {
		return BadFlag{fmt.Errorf("--size-by: %q is not allowed, only param:NAME, metric:NAME or none", by)}
	}
	if err := CheckColumns(append(c.Columns, strings.TrimPrefix(c.Sort, "-"))); err != nil {
		return BadFlag{err}
	}
	source, err := sourceAt(base, getenv)
	if err != nil {
		return err
	}
	source.Accuracy = accuracy
	comparison, err := c.load(ctx, source)
	if err != nil {
		return err
	}
	if err := c.write(comparison, out); err != nil {
		return err
	}
	if c.LogToRun != "" {
		if err := c.logToRun(ctx, source, comparison); err != nil {
			return err
		}
	}
	return c.withinBudget(comparison.Total())
}

// trackingURL reads where MLflow is. A refused value is not shown as it is: tracking URIs of databases have passwords in
// them.
func (c *Command) trackingURL() (*url.URL, error) {
	const example = "for example http://127.0.0.1:5001"
	if c.TrackingURI == "" {
		return nil, errors.New("--tracking-uri: say where MLflow is, here or by MLFLOW_TRACKING_URI, " + example)
	}
	u, err := url.Parse(c.TrackingURI)
	if err != nil {
		return nil, errors.New("--tracking-uri: this is not a URL; give a server's, " + example)
	}
	if !mlflow.IsBaseURL(u) {
		return nil, fmt.Errorf("--tracking-uri: %s is not a server's base URL, %s", u.Redacted(), example)
	}
	return u, nil
}

// sourceAt returns how to read the server at a tracking URI, as MLflow's client would.
func sourceAt(base *url.URL, getenv func(string) string) (Source, error) {
	client, caller, err := mlflow.FromEnvironment(getenv, base)
	if err != nil {
		return Source{}, BadFlag{err}
	}
	server := *base
	server.User = nil
	return Source{
		Client: client,
		Caller: caller,
		RunURL: RunURLs(strings.TrimSuffix(server.String(), "/")+"/", getenv("MLFLOW_WORKSPACE")),
	}, nil
}

// load reads the comparison.
func (c *Command) load(ctx context.Context, source Source) (Comparison, error) {
	query := Query{Filter: c.Filter, Runs: c.Runs, Size: c.SizeBy, Sort: c.Sort}
	for _, name := range c.Experiments {
		e, err := source.Client.FindExperiment(ctx, source.Caller, name)
		if err != nil {
			return Comparison{}, err
		}
		query.Experiments = append(query.Experiments, e.ID)
	}
	comparison, err := Load(ctx, source, query)
	if err != nil {
		return comparison, err
	}
	for _, id := range query.Runs { // a report of all runs in its place would pass for one of this
		if !slices.ContainsFunc(comparison.Runs, func(r Run) bool { return r.ID == id }) {
			return comparison, fmt.Errorf("--run: %q is no run that was found in %s", id, strings.Join(c.Experiments, ", "))
		}
	}
	return comparison, nil
}

// write renders the comparison where it is asked for: to its end, or not at all.
func (c *Command) write(comparison Comparison, stdout io.Writer) error {
	var b bytes.Buffer
	var err error
	switch c.Format {
	case "csv":
		err = comparison.WriteCSV(&b)
	case "json":
		err = comparison.WriteJSON(&b)
	case "html":
		err = comparison.WriteHTML(&b, c.Columns, time.Now())
	case "svg", "png":
		err = comparison.WritePlot(&b, c.Plot, c.Format)
	default:
		err = comparison.WriteText(&b, c.Columns)
	}
	if err != nil {
		return fmt.Errorf("--format %s: %w", c.Format, err)
	}
	if c.Output == "" {
		_, err = stdout.Write(b.Bytes())
		return err
	}
	if err := os.WriteFile(c.Output, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// artifactName is the file that --log-to-run stores.
const artifactName = "emissions.html"

func (c *Command) logToRun(ctx context.Context, source Source, comparison Comparison) error {
	run, err := source.Client.Run(ctx, source.Caller, c.LogToRun)
	if err != nil {
		return fmt.Errorf("--log-to-run: %w", err)
	}
	var b bytes.Buffer
	if err := comparison.WriteHTML(&b, c.Columns, time.Now()); err != nil {
		return fmt.Errorf("--log-to-run: %w", err)
	}
	if err := source.Client.PutArtifact(ctx, source.Caller, run, artifactName, "text/html", b.Bytes()); err != nil {
		return fmt.Errorf("--log-to-run: %w", err)
	}
	return nil
}

// withinBudget compares what the runs emitted together with what they may.
func (c *Command) withinBudget(t Total) error {
	if c.MaxEmissionsG == nil {
		return nil
	}
	limit := Value(*c.MaxEmissionsG)
	switch {
	case t.Runs == 0:
		return BudgetError{false, errors.New("--max-emissions-g: there are no runs to judge; are the experiment and the filter right?")}
	case t.Emissions > limit:
		return BudgetError{true, fmt.Errorf("over budget: %s emitted, --max-emissions-g %v allows %s", Mass(t.Emissions), *c.MaxEmissionsG, Mass(limit))}
	case t.WithoutFigures > 0:
		return BudgetError{false, fmt.Errorf("--max-emissions-g: %d of %d runs have no figures, so it cannot be told whether the budget was kept", t.WithoutFigures, t.Runs)}
	}
	return nil
}
