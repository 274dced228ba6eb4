package report

import (
	"encoding/csv"
	"io"
	"strconv"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// WriteCSV writes all that is known of the chosen runs, one a line, in the figures' own units, which their names say.
func (c Comparison) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	head := []string{"run_id", "experiment_id", "parent_run_id", "inside_parent"}
	for _, col := range columns {
		switch col.key {
		case "interval":
			head = append(head, "low_g", "high_g")
		case "inference_interval":
			head = append(head, "inference_low_g", "inference_high_g")
		case "accuracy":
			head = append(head, "accuracy_percent", "accuracy_key")
		case "intensity":
			head = append(head, "intensity_g_per_kwh", "intensity_source", "pue")
		default:
			head = append(head, col.key)
		}
	}
	if err := out.Write(append(head, "end", "pareto", "url")); err != nil {
		return err
	}
	for _, r := range c.Chosen() {
		line := []string{r.ID, r.ExperimentID, mlflow.Cell(r.Parent), strconv.FormatBool(r.Inside)}
		for _, col := range columns {
			switch {
			case col.key == "interval":
				line = append(line, number(r.Low), number(r.High))
			case col.key == "inference_interval":
				line = append(line, number(r.InferenceLow), number(r.InferenceHigh))
			case col.key == "accuracy":
				line = append(line, number(r.Accuracy), mlflow.Cell(r.AccuracyKey))
			case col.key == "intensity":
				line = append(line, number(r.Intensity), mlflow.Cell(r.IntensityFrom), number(r.PUE))
			case col.value != nil:
				line = append(line, number(col.value(r)))
			default:
				line = append(line, mlflow.Cell(col.text(r)))
			}
		}
		end := ""
		if r.End != nil {
			end = r.End.Format(time.DateTime)
		}
		if err := out.Write(append(line, end, strconv.FormatBool(r.Pareto), r.URL)); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// number writes a figure in full; nothing if it is not known.
func number(v Value) string {
	if !v.Known() {
		return ""
	}
	return strconv.FormatFloat(float64(v), 'g', -1, 64)
}
