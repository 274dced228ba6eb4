package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"mlflow-emissions-proxy/mlflow"
)

// Document is the JSON of a comparison, as the command and the page's own address give it.
type Document struct {
	Experiments []NamedExperiment `json:"experiments"`
	Size        string            `json:"size"` // what a run's size is: param:NAME, metric:NAME, none
	Runs        []Run             `json:"runs"`
	Next        string            `json:"next_page_token,omitempty"` // for page_token, where there are more
}

// NamedExperiment is an experiment that is compared.
type NamedExperiment struct {
	ID   string `json:"experiment_id"`
	Name string `json:"name"`
}

// Document returns the chosen runs as they are shown in JSON.
func (c Comparison) Document() Document {
	d := Document{Experiments: []NamedExperiment{}, Size: c.Size, Runs: c.Chosen(), Next: c.Next}
	for _, e := range c.Experiments {
		d.Experiments = append(d.Experiments, NamedExperiment{e.ID, e.Name})
	}
	if d.Runs == nil {
		d.Runs = []Run{}
	}
	return d
}

// WriteJSON writes the chosen runs as JSON.
func (c Comparison) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(c.Document())
}

// The widest that texts are in the terminal's table.
const (
	widestName = 32
	widestText = 24
)

// WriteText writes the chosen runs as a table for a terminal, and what they emitted together.
func (c Comparison) WriteText(w io.Writer, named []string) error {
	runs := c.Chosen()
	cols := shown(runs, len(c.Experiments), named)
	table := make([][]string, 1, len(runs)+1)
	units := make([]unit, len(cols))
	for i, col := range cols {
		units[i] = col.unitOf(runs)
		title := col.title
		if units[i].name != "" {
			title += " " + units[i].name
		}
		table[0] = append(table[0], title)
	}
	for _, r := range runs {
		var line []string
		for i, col := range cols {
			text := mlflow.OneLine(col.show(r, units[i]))
			widest := widestText
			if col.key == "name" {
				widest = widestName
				if r.Inside {
					text = "└ " + text
				}
			}
			line = append(line, cut(text, widest))
		}
		table = append(table, line)
	}
	widths := make([]int, len(cols))
	for _, line := range table {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for _, line := range table {
		var b strings.Builder
		for i, text := range line {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if cols[i].value != nil {
				text = space + text
			} else {
				text += space
			}
			b.WriteString(text + "  ")
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return c.writeSum(w)
}

// writeSum writes what the runs emitted together, and what that does not hold.
func (c Comparison) writeSum(w io.Writer) error {
	t := c.Total()
	if t.Runs == 0 {
		_, err := fmt.Fprintln(w, "\nNo runs.")
		return err
	}
	if t.Emissions == 0 && t.WithoutFigures > 0 {
		_, err := fmt.Fprintf(w, "\n%s, none of them metered.\n", countRuns(t.Runs))
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s emitted %s CO2e together%s: as much as %s by car, or %s charges of a phone (EPA).\n",
		countRuns(t.Runs), Mass(t.Emissions), t.between(), Distance(t.Kilometres()), Charges(t.PhoneCharges()))
	if err == nil && t.Caveat() != "" {
		_, err = fmt.Fprintln(w, t.Caveat())
	}
	return err
}

func (t Total) between() string {
	if !t.Low.Known() || !t.High.Known() {
		return ""
	}
	return fmt.Sprintf(" (%s to %s)", Mass(t.Low), Mass(t.High))
}

// Caveat says what a total does not hold; empty if it holds all.
func (t Total) Caveat() string {
	var missing []string
	if t.WithoutFigures > 0 {
		missing = append(missing, countRuns(t.WithoutFigures)+" without figures not counted")
	}
	if t.Incomplete > 0 {
		missing = append(missing, countRuns(t.Incomplete)+" partial or still running: at least so much")
	}
	return strings.Join(missing, "; ")
}

func countRuns(n int) string {
	if n == 1 {
		return "1 run"
	}
	return grouped(fmt.Sprint(n)) + " runs"
}

// cut shortens a text to so many letters.
func cut(s string, widest int) string {
	if letters := []rune(s); len(letters) > widest {
		return string(letters[:widest-1]) + "…"
	}
	return s
}
