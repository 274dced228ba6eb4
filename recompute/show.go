package recompute

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/mlflow"
)

// shown is an answer as lists show it.
type shown struct {
	ID     string  `json:"run_id"`
	Name   string  `json:"name"`
	KWh    float64 `json:"energy_kwh"`
	PUE    float64 `json:"pue"`
	Was    float64 `json:"was_g"`
	Now    float64 `json:"now_g"`
	G      float64 `json:"g_per_kwh"`
	Kind   string  `json:"kind"`
	Source string  `json:"source"`
	Even   bool    `json:"spread_evenly"` // the run keeps no energy over time
	Why    string  `json:"left_out,omitempty"`
}

// Show writes answers as "table", "csv" or "json".
func Show(w io.Writer, answers []Answer, format string) error {
	rows := make([]shown, 0, len(answers))
	for _, a := range answers {
		s := shown{ID: a.Run.ID, Name: a.Run.Name, Why: a.Why}
		if a.Why == "" {
			s = shown{a.Run.ID, a.Run.Name, a.KWh, a.PUE, a.Was.Grams(), a.Now.Grams(), a.intensity(),
				carbon.DescribeKinds(a.Factors), carbon.DescribeSources(a.Factors), a.Even, ""}
		}
		rows = append(rows, s)
	}
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	case "csv":
		out := csv.NewWriter(w)
		_ = out.Write([]string{"run_id", "name", "energy_kwh", "pue", "was_g", "now_g", "g_per_kwh", "kind", "source", "spread_evenly", "left_out"})
		text := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
		for _, r := range rows {
			_ = out.Write([]string{r.ID, mlflow.Cell(mlflow.OneLine(r.Name)), text(r.KWh), text(r.PUE), text(r.Was), text(r.Now), text(r.G), r.Kind, r.Source, strconv.FormatBool(r.Even), mlflow.Cell(mlflow.OneLine(r.Why))})
		}
		out.Flush()
		return out.Error()
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tNAME\tKWH\tWAS G\tNOW G\tCHANGE\tG/KWH\tFROM")
	var was, now float64
	even := false
	shownRuns := map[string]bool{}
	for _, a := range answers {
		shownRuns[a.Run.ID] = a.Why == ""
	}
	for i, r := range rows {
		if r.Why != "" {
			fmt.Fprintf(t, "%s\t%s\t\t\t\t\t\tleft out: %s\n", r.ID, mlflow.OneLine(r.Name), mlflow.OneLine(r.Why))
			continue
		}
		if even = even || r.Even; !shownRuns[answers[i].Run.Tags[tagParent]] { // whose figures have the nested run's in them
			was, now = was+r.Was, now+r.Now
		}
		fmt.Fprintf(t, "%s\t%s\t%.6g\t%.6g\t%.6g\t%s\t%.4g\t%s (%s)\n", r.ID, mlflow.OneLine(r.Name), r.KWh, r.Was, r.Now, change(r.Was, r.Now), r.G, r.Source, r.Kind)
	}
	fmt.Fprintf(t, "all\t\t\t%.6g\t%.6g\t%s\t\t\n", was, now, change(was, now))
	if err := t.Flush(); err != nil {
		return err
	}
	if even {
		fmt.Fprintln(w, "Some runs keep no energy over time and are taken to have used it evenly.")
	}
	return nil
}

// change shows how one figure became another, in percent.
func change(was, now float64) string {
	if was == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", 100*(now/was-1))
}
