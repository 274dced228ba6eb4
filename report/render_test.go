package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"image/png"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// hostileName would do harm as markup, in a terminal, in a spreadsheet, and by turning the direction of what follows.
const hostileName = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>\u202e\x1b[31m\nline two"

func hostileServer(t *testing.T) *server {
	r := measuredRun("a", 2, 0.8, tagStatus, "partial: "+hostileName, tagLocation, "=1+1", tagHost, hostileName, "emissions.method.cpu", hostileName)
	r["info"].(map[string]any)["run_name"] = hostileName
	r["info"].(map[string]any)["user_id"] = "@SUM(1)"
	return newServer(t, r, measuredRun("b", 1, 0.7))
}

// What others wrote into runs must not become markup or a program, wherever it is shown.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	s := hostileServer(t)
	c := load(t, s, Query{})
	var file bytes.Buffer
	require.NoError(t, c.WriteHTML(&file, nil, time.Now()))
	page := s.get(t, Config{}, "/emissions/?experiment=1&filter="+"%3Cscript%3E").Body.String()
	markup := regexp.MustCompile(`(?s)<script>.*?</script>`).ReplaceAllString(file.String(), "") // our own programs
	for _, text := range []string{page, markup} {
		assert.NotContains(t, text, "<script>")
		assert.NotContains(t, text, "<img")
		assert.Contains(t, text, "&lt;script&gt;alert(1)")
		assert.Equal(t, 1, strings.Count(text, `type="application/json"`))
	}
	assert.Equal(t, 3, strings.Count(file.String(), "<script>"))

	var table bytes.Buffer
	require.NoError(t, c.WriteText(&table, nil))
	assert.NotContains(t, table.String(), "\x1b")
	assert.NotContains(t, table.String(), "\u202e")
	assert.Equal(t, 6, strings.Count(table.String(), "\n"), "one line for each run: %s", &table)

	var sheet bytes.Buffer
	require.NoError(t, c.WriteCSV(&sheet))
	records, err := csv.NewReader(&sheet).ReadAll()
	require.NoError(t, err)
	for _, record := range records {
		for _, field := range record {
			if field != "" {
				assert.NotContains(t, "=@", field[:1], "a formula: %q", field)
			}
		}
	}
}

// The one file works where there is no network, and runs nothing but our own programs.
func TestOneFile(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, load(t, newServer(t, measuredRun("a", 2, 0.8)), Query{}).WriteHTML(&b, []string{"accuracy"}, time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)))
	file := b.String()
	assert.Contains(t, file, "2026-01-02 03:04")
	policy := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(file)
	require.NotNil(t, policy)
	for _, name := range scripts {
		assert.Contains(t, file, "<script>"+string(statics[name].content)+"</script>")
		assert.NotContains(t, strings.ToLower(string(statics[name].content)), "</script", "it would end the script too early")
		assert.Contains(t, strings.ReplaceAll(policy[1], "&#43;", "+"), statics[name].integrity())
	}
	assert.NotContains(t, strings.ReplaceAll(policy[1], "&#43;", "+"), "unsafe")
	markup := regexp.MustCompile(`(?s)<(script|style)>.*?</(script|style)>`).ReplaceAllString(file, "")
	assert.NotContains(t, markup, "static/")
	assert.NotRegexp(t, `(src|action)=`, markup)
	for _, link := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(markup, -1) {
		assert.Regexp(t, `^(#|\?|http://mlflow\.example/#/|https://www\.epa\.gov/)`, link[1])
	}
	assert.Regexp(t, `<th scope="col" data-key="location"[^>]* hidden`, file, "only the columns that were named")
}

func TestCSV(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, load(t, newServer(t, measuredRun("a", 0.1, 0.8), wireRun("none", nil, nil)), Query{}).WriteCSV(&b))
	records, err := csv.NewReader(&b).ReadAll()
	require.NoError(t, err)
	require.Len(t, records, 3)
	at := func(line int, name string) string {
		for i, head := range records[0] {
			if head == name {
				return records[line][i]
			}
		}
		t.Fatalf("no column %s", name)
		return ""
	}
	for name, want := range map[string]string{"run_id": "a", "name": "name of a", "emissions_g": "0.1", "low_g": "0.08000000000000002", "accuracy_percent": "80", "accuracy_key": "test_accuracy", "gpu_energy_kwh": "", "method": "cpu rapl, ram model:resident", "location": "BEL", "start": "2023-11-14 22:13:20", "metering": "measured", "inside_parent": "false"} {
		assert.Equal(t, want, at(1, name), name)
	}
	assert.Empty(t, at(2, "emissions_g"), "no zero in its place")
}

func TestText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	c := load(t, newServer(t, measuredRun("a", 0.012, 0.8), measuredRun("b", 1.5, 0.912345)), Query{Sort: "-emissions_g"})
	require.NoError(t, c.WriteText(&b, []string{"accuracy", "emissions_g", "interval", "location"}))
	assert.Equal(t, `Run        Accuracy %  Emissions g      Low–high g  Location
name of b        91.2         1.50       1.20–1.95  BEL
name of a        80.0       0.0120  0.00960–0.0156  BEL

2 runs emitted 1.51 g CO2e together (1.21 g to 1.97 g): as much as 6.19 m by car, or 0.122 charges of a phone (EPA).
`, b.String())
	b.Reset()
	require.NoError(t, Comparison{}.WriteText(&b, nil))
	assert.Contains(t, b.String(), "No runs.")
	b.Reset()
	require.NoError(t, load(t, newServer(t, wireRun("a", nil, nil)), Query{}).WriteText(&b, nil))
	assert.Contains(t, b.String(), "1 run, none of them metered.")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, Comparison{}.WriteJSON(&b))
	assert.JSONEq(t, `{"experiments":[],"size":"","runs":[]}`, b.String())
	require.NoError(t, json.Unmarshal(b.Bytes(), &Document{}))
}

// Plots are drawn whatever the names are, and there is one clear line where there is nothing to draw.
func TestPlots(t *testing.T) {
	t.Parallel()
	c := load(t, hostileServer(t), Query{})
	for _, kind := range []string{PlotAccuracy, PlotPredictions, PlotEnergy} {
		var b bytes.Buffer
		require.NoError(t, c.WritePlot(&b, kind, "svg"))
		texts := ""
		for d := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err, "well-formed")
			if element, ok := token.(xml.StartElement); ok {
				assert.NotEqual(t, "script", element.Name.Local)
			}
			if text, ok := token.(xml.CharData); ok {
				texts += string(text) + "\n"
			}
		}
		assert.Contains(t, texts, "name of b")
		b.Reset()
		require.NoError(t, c.WritePlot(&b, kind, "png"))
		picture, err := png.Decode(&b)
		require.NoError(t, err)
		colors := map[[3]uint32]int{}
		for y := range picture.Bounds().Dy() {
			for x := range picture.Bounds().Dx() {
				r, g, b, _ := picture.At(x, y).RGBA()
				colors[[3]uint32{r >> 8, g >> 8, b >> 8}]++
			}
		}
		if kind == PlotAccuracy {
			assert.Greater(t, colors[[3]uint32{0xd5, 0x5e, 0}], 0, "the Pareto front")
		} else {
			assert.Greater(t, colors[[3]uint32{0, 0x72, 0xb2}], 1000, "bars")
		}
	}
	none := load(t, newServer(t, wireRun("a", nil, nil)), Query{})
	assert.ErrorContains(t, none.WritePlot(io.Discard, PlotAccuracy, "svg"), "no run has both an accuracy and emissions")
	assert.ErrorContains(t, none.WritePlot(io.Discard, PlotEnergy, "svg"), "no run has what this shows")
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for v, want := range map[Value]string{0: "0", 1: "1.00", 0.0123456: "0.0123", 9.999: "10.0", 0.9996: "1.00", 12.345: "12.3", 123.45: "123", 1234.5: "1234", 12345.6: "12\u202f346", 1234567: "1\u202f234\u202f567", 1.2345e-7: "1.23×10⁻⁷", -3.14159: "−3.14", unknown: "–"} {
		assert.Equal(t, want, plain(v))
	}
	for v, want := range map[Value]string{0: "0", 1.5e-7: "150 ng", 0.0015: "1.50 mg", 0.9996: "1.00 g", 50: "50.0 g", 1234: "1.23 kg", 5e6: "5.00 t", unknown: "–"} {
		assert.Equal(t, want, Mass(v))
	}
	assert.Equal(t, "1.23 mWh", Energy(1.234e-6))
	assert.Equal(t, "25.6 M", Count(25_636_712))
	assert.Equal(t, "4.45 mm", Distance(4.45e-6))
	assert.Equal(t, "1/11\u202f407", Charges(1.0/11407))
	assert.Equal(t, "1.25", Charges(1.25))
	for s, want := range map[Value]string{0.85: "850 ms", 12.34: "12.3 s", 59.97: "1 min 00 s", 245: "4 min 05 s", 3600 * 3.125: "3 h 07 min", 3600 * 52: "2 d 04 h", unknown: "–"} {
		assert.Equal(t, want, Seconds(s))
	}
	assert.Equal(t, unit{"mg", 1e-3}, common(massUnits, []Value{0.001, 0.02, 5, unknown, 0}))
	assert.Equal(t, unit{"g", 1}, common(massUnits, []Value{unknown}))
}

// A week of a value every half minute must not be sent whole, and must end where the run is.
func TestCurvesAreThinnedOut(t *testing.T) {
	t.Parallel()
	var values []mlflow.Metric
	for i := range 20_000 {
		values = append(values, mlflow.Metric{Timestamp: int64(i), Value: float64(i)})
	}
	points := curveOf(values)
	assert.LessOrEqual(t, len(points), curvePoints+1)
	assert.Equal(t, [2]float64{19_999, 19_999}, points[len(points)-1])
	assert.Len(t, curveOf(values[:3]), 3)
	assert.NotNil(t, curveOf(nil), "an empty list, not null")
}

// Numbers of one kind that stand side by side are compared by eye: they must be in one unit.
func TestColumnsThatAreComparedShareAUnit(t *testing.T) {
	t.Parallel()
	runs := []Run{{Emissions: 0.9, Low: 0.5, High: 1.4, Energy: 0.002, CPU: 0.0019, RAM: 0.0001, Inference: 0.5, InferenceHigh: 1.2}}
	units := map[string]string{}
	for _, c := range columns {
		units[c.key] = c.unitOf(runs).name
	}
	assert.Equal(t, "mg", units["emissions_g"])
	assert.Equal(t, "mg", units["interval"])
	assert.Equal(t, []string{"Wh", "Wh", "Wh", "Wh"}, []string{units["energy_kwh"], units["cpu_energy_kwh"], units["gpu_energy_kwh"], units["ram_energy_kwh"]})
	assert.Equal(t, units["inference_g"], units["inference_interval"])
}

func TestCheckColumns(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckColumns([]string{"accuracy", ""}))
	assert.ErrorContains(t, CheckColumns([]string{"colour"}), `"colour" is no column; these are: name, `)
}
