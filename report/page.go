package report

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"static": staticURL, "mass": Mass, "energy": Energy, "distance": Distance, "charges": Charges, "count": func(n int) string { return grouped(fmt.Sprint(n)) },
	"runs": countRuns, "date": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") },
	"css": func(name string) template.CSS { return template.CSS(statics[name].content) }, // our own files
	"js":  func(name string) template.JS { return template.JS(statics[name].content) },
}).Parse(pageHTML))

// scripts are the page's programs, in their order.
var scripts = []string{"echarts.js", "charts.js", "page.js"}

// pageData is what the template shows.
type pageData struct {
	View            view
	Home            string              // address of MLflow's own pages
	Experiments     []mlflow.Experiment // to choose from
	MoreExperiments bool
	Comparison      Comparison
	Fault           string // MLflow's words, or why there are none
	FilterFault     bool   // it is about the filter
	File            bool   // one file that is complete, and asks for nothing
	Made            time.Time
}

// write renders the page. What is written is complete or nothing.
func (p pageData) write(w io.Writer) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteHTML writes the comparison as one HTML file that works without a network. Its programs are named by their hashes,
// so that nothing else in it can run.
func (c Comparison) WriteHTML(w io.Writer, columns []string, now time.Time) error {
	return pageData{View: view{Query: Query{Experiments: []string{"-"}}, Columns: columns}, Comparison: c, File: true, Made: now}.write(w)
}

// Policy is the content security policy of the one file.
func (p pageData) Policy() string {
	hashes := ""
	for _, name := range scripts {
		hashes += " '" + statics[name].integrity() + "'"
	}
	return "default-src 'none'; script-src" + hashes + "; style-src '" + statics["page.css"].integrity() + "'; base-uri 'none'; form-action 'none'"
}

// Scripts returns the names of the page's programs.
func (p pageData) Scripts() []string { return scripts }

// Title is the page's.
func (p pageData) Title() string {
	var names []string
	for _, e := range p.Comparison.Experiments {
		names = append(names, mlflow.OneLine(e.Name))
	}
	if len(names) == 0 {
		return "Emissions"
	}
	return "Emissions of " + strings.Join(names, ", ")
}

// Comparing says whether experiments are chosen.
func (p pageData) Comparing() bool { return len(p.View.Experiments) > 0 }

// ChosenExperiment says whether an experiment is compared.
func (p pageData) ChosenExperiment(id string) bool { return slices.Contains(p.View.Experiments, id) }

// With returns the address of the page for one experiment alone.
func (p pageData) With(id string) string {
	return view{Query: Query{Experiments: []string{id}}, Workspace: p.View.Workspace}.address()
}

// All returns the address that shows all of an experiment's runs, without filter or choice.
func (p pageData) All() string {
	return view{Query: Query{Experiments: p.View.Experiments}, Workspace: p.View.Workspace}.address()
}

// CSV returns the address of the same runs as a file.
func (p pageData) CSV() string { return "runs.csv" + p.View.address() }

// JSON returns the address of the first experiment's runs as JSON.
func (p pageData) JSON() string {
	v := p.View
	v.Experiments = nil
	return "api/experiments/" + template.URLQueryEscaper(p.View.Experiments[0]) + "/runs" + v.address()
}

// option is one of a choice.
type option struct {
	Value, Text string
	Chosen      bool
}

// mostSizes is how many params and metrics are offered for the bubbles; the address may name any other.
const mostSizes = 300

// Sizes are what bubbles may show.
func (p pageData) Sizes() []option {
	options := []option{{sizeNone, "nothing: all alike", p.Comparison.Size == sizeNone}}
	for i, s := range p.Comparison.Sizes {
		if i >= mostSizes && s != p.Comparison.Size {
			continue
		}
		kind, key, _ := strings.Cut(s, ":")
		options = append(options, option{s, mlflow.OneLine(key) + " (" + kind + ")", s == p.Comparison.Size})
	}
	return options
}

// SizeName names what bubbles show; empty if nothing.
func (p pageData) SizeName() string {
	if p.Comparison.Size == sizeNone {
		return ""
	}
	_, key, _ := strings.Cut(p.Comparison.Size, ":")
	return mlflow.OneLine(key)
}

// ColumnChoice is all columns, and whether they are shown.
func (p pageData) ColumnChoice() []option {
	var options []option
	visible := p.columns()
	for _, c := range columns {
		if c.key != "name" {
			options = append(options, option{c.key, c.title, slices.ContainsFunc(visible, func(v column) bool { return v.key == c.key })})
		}
	}
	return options
}

func (p pageData) columns() []column {
	return shown(p.Comparison.Runs, len(p.View.Experiments), p.View.Columns)
}

// heading is the head of a column.
type heading struct {
	Key, Title, Unit, Help string
	Sort                   string // address of the page in its order
	Sorted                 string // ascending, descending, or none
	Scale                  Value  // how many of the figures' own unit are in the unit shown
	Number, Hidden         bool
}

// entry is one cell of the table.
type entry struct {
	Key, Text      string
	Whole, Rest    string // of a number: before the point, and from it on, so that points stand below one another
	Width          int    // of the column's longest rest, in digits
	Order          string // what the column is sorted by
	Number, Hidden bool
}

// line is one run of the table.
type line struct {
	Run
	Chosen  bool
	Depth   int
	Entries []entry
}

// Label names a run for those who do not see the table.
func (l line) Label() string { return mlflow.OneLine(cmp.Or(l.Name, l.ID)) }

// Badge says in a word how far the run was metered.
func (l line) Badge() string { return string(l.Metering) }

// table is the table of runs. All columns are in it, those that are not shown hidden, so that showing one asks for
// nothing.
type table struct {
	Headings []heading
	Lines    []line
}

// Table is the table of runs.
func (p pageData) Table() table {
	visible := p.columns()
	found := p.Comparison.Runs
	t := table{Lines: make([]line, len(found))}
	for i, r := range found {
		t.Lines[i] = line{Run: r, Chosen: p.Comparison.chosen[r.ID]}
		if r.Parent != "" {
			t.Lines[i].Depth = 1
		}
	}
	for _, c := range columns {
		u := c.unitOf(found)
		hidden := !slices.ContainsFunc(visible, func(v column) bool { return v.key == c.key })
		h := heading{Key: c.key, Title: c.title, Unit: u.name, Scale: u.scale, Help: c.help, Sort: p.View.sorted(c).address(), Sorted: "none", Number: c.value != nil, Hidden: hidden}
		switch p.View.Sort {
		case c.key:
			h.Sorted = "ascending"
		case "-" + c.key:
			h.Sorted = "descending"
		}
		t.Headings = append(t.Headings, h)
		width := 0
		entries := make([]entry, len(found))
		for i, r := range found {
			e := entry{Key: c.key, Text: c.show(r, u), Number: c.value != nil, Hidden: hidden}
			if e.Number && c.text == nil && !c.isInterval() {
				e.Whole, e.Rest = e.Text, ""
				if point := strings.IndexByte(e.Text, '.'); point >= 0 && !strings.Contains(e.Text, "×") {
					e.Whole, e.Rest = e.Text[:point], e.Text[point:]
				}
				width = max(width, len(e.Rest))
			}
			if e.Number {
				e.Order = number(c.value(r))
			}
			entries[i] = e
		}
		for i := range entries {
			entries[i].Width = min(width, maxRest)
			t.Lines[i].Entries = append(t.Lines[i].Entries, entries[i])
		}
	}
	return t
}

// maxRest is the longest part from the point on that the style sheet has a width for.
const maxRest = 7

// Groups are the totals.
func (p pageData) Groups() []group {
	c := p.Comparison
	return []group{{"Experiment", c.ByExperiment()}, {"User", c.ByUser()}, {"Month", c.ByMonth()}}
}

type group struct {
	Title  string
	Totals []Total
}

// State counts the runs by how far they were metered.
func (p pageData) State() string {
	counts := map[Metering]int{}
	for _, r := range p.Comparison.Chosen() {
		counts[r.Metering]++
	}
	var parts []string
	for _, m := range []Metering{Measured, Partial, Running, Unmeasured, Skipped, Unseen} {
		if counts[m] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[m], m))
		}
	}
	return strings.Join(parts, ", ")
}

// AnyRunning says whether a run goes on.
func (p pageData) AnyRunning() bool {
	return slices.ContainsFunc(p.Comparison.Runs, func(r Run) bool { return r.Metering == Running })
}

// Source is where the plain comparisons are from.
func (p pageData) Source() string { return EquivalenceSource }

// point is a run as the charts need it.
type point struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Experiment string   `json:"experiment,omitempty"`
	Metering   Metering `json:"metering"`
	Inside     bool     `json:"inside,omitempty"`
	Accuracy   Value    `json:"accuracy"`
	Emissions  Value    `json:"emissions"`
	Low        Value    `json:"low"`
	High       Value    `json:"high"`
	CPU        Value    `json:"cpu"`
	GPU        Value    `json:"gpu"`
	RAM        Value    `json:"ram"`
	Per10      Value    `json:"per10"`
	Per10Low   Value    `json:"per10low"`
	Per10High  Value    `json:"per10high"`
	Size       Value    `json:"size"`
}

// Data is what the charts draw.
func (p pageData) Data() any {
	points := make([]point, 0, len(p.Comparison.Runs))
	for _, r := range p.Comparison.Runs {
		q := point{ID: r.ID, Name: mlflow.OneLine(cmp.Or(r.Name, r.ID)), Metering: r.Metering, Inside: r.Inside, Accuracy: r.Accuracy, Emissions: r.Emissions,
			Low: r.Low, High: r.High, CPU: r.CPU, GPU: r.GPU, RAM: r.RAM, Per10: r.Per10, Per10Low: r.Per10 * r.InferenceLow / r.Inference, Per10High: r.Per10 * r.InferenceHigh / r.Inference, Size: r.Size}
		if len(p.View.Experiments) > 1 || len(p.Comparison.Experiments) > 1 {
			q.Experiment = mlflow.OneLine(r.Experiment)
		}
		points = append(points, q)
	}
	// Experiments keep their colours, whatever the order of their runs.
	experiments := []string{}
	for _, e := range p.Comparison.Experiments {
		experiments = append(experiments, mlflow.OneLine(e.Name))
	}
	return map[string]any{"runs": points, "experiments": experiments, "size": p.SizeName(), "live": !p.File}
}
