package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
)

// britain answers as Great Britain's Carbon Intensity API does: the half-hour that is not over has a forecast alone.
func britain(t *testing.T, g int) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	const form = "2006-01-02T15:04Z"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/intensity/"), "/")
		from, err := time.Parse(form, parts[0])
		assert.NoError(t, err)
		to, err := time.Parse(form, parts[1])
		assert.NoError(t, err)
		var values []string
		for at := from.Truncate(30 * time.Minute); at.Before(to); at = at.Add(30 * time.Minute) {
			actual := fmt.Sprint(g)
			if at.Add(30 * time.Minute).After(time.Now()) {
				actual = "null"
			}
			values = append(values, fmt.Sprintf(`{"from":%q,"to":%q,"intensity":{"forecast":%d,"actual":%s,"index":"moderate"}}`,
				at.Format(form), at.Add(30*time.Minute).Format(form), g, actual))
		}
		fmt.Fprintf(w, `{"data":[%s]}`, strings.Join(values, ","))
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// A run has the intensity of its half-hour from the provider, by one request however often it is logged.
func TestLiveIntensity(t *testing.T) {
	t.Parallel()
	url, asked := britain(t, 123)
	p := startProxy(t, "--live", "gb", "--live-url", url, "--pue", "1.5", "--log-interval", "1s", "--embodied-kg", "1300")
	eventually(t, "the first value", func() bool { return p.metric(`emissions_carbon_intensity_grams_per_kwh{location="GBR"}`) == 123 })
	r := of(t, p.run("evaluate")["run"])
	m := r.Metrics
	assert.InEpsilon(t, 1.5*123*m["emissions/energy_kwh"].Value, m["emissions_g"].Value, 1e-9)
	assert.InEpsilon(t, 1.5*m["emissions/energy_kwh"].Value, m["emissions/facility_energy_kwh"].Value, 1e-9)
	assert.Equal(t, "123", r.Tags["emissions.intensity"])
	assert.Contains(t, r.Tags["emissions.intensity_kind"], "direct, CO2 only, average, estimated")
	assert.NotContains(t, r.Tags["emissions.intensity_kind"], "mixed")
	assert.Contains(t, r.Tags["emissions.intensity_source"], "GB Carbon Intensity, 20")
	assert.Equal(t, "GBR", r.Tags["emissions.location"])
	assert.LessOrEqual(t, asked.Load(), int64(2), "a second only where the half-hour ended meanwhile")
	assert.Greater(t, m["emissions/embodied_g"].Value, 0.0)
	assert.Greater(t, m["emissions/sci_g_per_inference"].Value, m["emission_per_10_inferences"].Value/10)
	assert.Contains(t, r.Tags["emissions.sci"], "ISO/IEC 21031:2024")
}

// A provider whose values change every two seconds: the run's grams are those of its energy cut there. Its key is in no
// log, tag or metric.
func TestLiveIntensityOverSteps(t *testing.T) {
	t.Parallel()
	value := func(at time.Time) float64 { return 500 + 400*float64(at.Unix()/2%3) } // lb/MWh
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); r.URL.Path == "/login" {
			assert.True(t, ok && user == "ann" && password == "key-4711")
			fmt.Fprint(w, `{"token":"token-4711"}`)
			return
		}
		assert.Equal(t, "Bearer token-4711", r.Header.Get("Authorization"))
		assert.Equal(t, "co2_moer", r.URL.Query().Get("signal_type"))
		var points []string
		for at := time.Now().Add(-30 * time.Second).Truncate(2 * time.Second); at.Before(time.Now().Add(time.Minute)); at = at.Add(2 * time.Second) {
			points = append(points, fmt.Sprintf(`{"point_time":%q,"value":%v}`, at.UTC().Format(time.RFC3339), value(at)))
		}
		fmt.Fprintf(w, `{"data":[%s],"meta":{"data_point_period_seconds":2,"region":"CAISO_NORTH","signal_type":"co2_moer","units":"lbs_co2_per_mwh"}}`, strings.Join(points, ","))
	}))
	t.Cleanup(s.Close)
	p := startProxyAt(t, []string{"WATTTIME_USER=ann", "WATTTIME_PASSWORD=key-4711"}, append(upstreamFlags(t),
		"--live", "watttime-marginal", "--live-zone", "CAISO_NORTH", "--live-url", s.URL, "--location", "California", "--log-level", "debug")...)
	eventually(t, "the first value", func() bool {
		return p.metric(`emissions_carbon_intensity_grams_per_kwh{location="US-CA"}`) != 179.064
	})
	r := of(t, p.run("work", "4")["run"])
	l, err := carbon.DecodeLedger(r.Tags["emissions.slices"])
	require.NoError(t, err)
	var grams float64
	steps := map[float64]bool{}
	for _, uses := range l {
		for _, u := range uses {
			for at := u.Start; at.Before(u.End); {
				next := at.Truncate(2 * time.Second).Add(2 * time.Second)
				if next.After(u.End) {
					next = u.End
				}
				g := value(at) * 0.45359237
				steps[g] = true
				grams += g * u.KWh * next.Sub(at).Seconds() / u.End.Sub(u.Start).Seconds()
				at = next
			}
		}
	}
	assert.GreaterOrEqual(t, len(steps), 2)
	assert.InEpsilon(t, grams, r.Metrics["emissions_g"].Value, 1e-3, "the tag keeps times to the millisecond")
	assert.Equal(t, "direct, CO2 only, marginal", r.Tags["emissions.intensity_kind"])
	for _, text := range []string{strings.Join(p.lines(), "\n"), fmt.Sprint(r.Tags), fmt.Sprint(p.series())} {
		assert.NotContains(t, text, "4711")
	}
}

// A provider that does not answer costs no client anything, and the table's figure says why it is there.
func TestAProviderThatHangs(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	p := startProxyAt(t, []string{"ELECTRICITYMAPS_TOKEN=key-4711"}, append(upstreamFlags(t),
		"--live", "electricitymaps", "--live-url", s.URL, "--location", "europe-west1")...)
	r := of(t, p.run("plain")["run"])
	assert.InEpsilon(t, 1.09*103.37*r.Metrics["emissions/energy_kwh"].Value, r.Metrics["emissions_g"].Value, 1e-9)
	assert.Equal(t, "Google Cloud region carbon data 2024 (direct) (since Electricity Maps, zone BE has no value for the time)", r.Tags["emissions.intensity_source"])
	assert.Equal(t, "direct, average", r.Tags["emissions.intensity_kind"])
	assert.Equal(t, "gcp:europe-west1", r.Tags["emissions.location"])
	assert.Equal(t, "1.09", r.Tags["emissions.pue"])
}

// upstreamFlags name the shared server.
func upstreamFlags(t *testing.T) []string {
	t.Helper()
	_, upstream, _ := setup(t)
	return []string{"--upstream", upstream.String()}
}

// recomputed is what the command prints of a run.
type recomputed struct {
	ID  string  `json:"run_id"`
	KWh float64 `json:"energy_kwh"`
	Was float64 `json:"was_g"`
	Now float64 `json:"now_g"`
}

func recompute(t *testing.T, args ...string) []recomputed {
	t.Helper()
	code, out, errs := command(t, nil, append([]string{"recompute", "--format", "json"}, args...)...)
	require.Equal(t, 0, code, errs)
	var rows []recomputed
	require.NoError(t, json.Unmarshal([]byte(out), &rows), out)
	return rows
}

// What if a finished run had been in Sweden, or by night? Nothing changes before --write; then all that follows from grams
// does, through the proxy that metered the run, too, and an accuracy that comes late changes nothing of it.
func TestRecompute(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("evaluate")["run"])
	kWh := r.Metrics["emissions/energy_kwh"].Value
	rows := recompute(t, "--experiment", t.Name(), "--tracking-uri", p.url, "--location", "Sweden")
	require.Len(t, rows, 1)
	assert.InEpsilon(t, 400*kWh, rows[0].Was, 1e-9)
	assert.InEpsilon(t, 40.695*kWh, rows[0].Now, 1e-6)
	assert.Equal(t, r.Metrics, of(t, r.ID).Metrics, "nothing is written")
	assert.Equal(t, r.Tags, of(t, r.ID).Tags)

	profile := t.TempDir() + "/nights.csv"
	require.NoError(t, os.WriteFile(profile, []byte("time,g_per_kwh\n00:00,100\n12:00,900\n"), 0o600))
	day := recompute(t, "--experiment", t.Name(), "--tracking-uri", p.url, "--profile", profile)[0].Now
	night := recompute(t, "--experiment", t.Name(), "--tracking-uri", p.url, "--profile", profile, "--shift", "12h")[0].Now
	assert.InEpsilon(t, 1000*kWh, day+night, 1e-6, "each at one of the two times of day")

	code, out, errs := command(t, []string{"MLFLOW_TRACKING_URI=" + p.url}, "recompute", "--experiment", t.Name(), "--location", "Sweden", "--write")
	require.Equal(t, 0, code, errs)
	assert.Contains(t, out, "-89.8 %")
	assert.Contains(t, errs, "1 runs were changed")
	code, _ = call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/log-metric", `{"run_id":"`+r.ID+`","key":"test_accuracy","value":0.5,"timestamp":1}`)
	require.Equal(t, 200, code)
	now := of(t, r.ID)
	assert.InEpsilon(t, 40.695*kWh, now.Metrics["emissions_g"].Value, 1e-6)
	assert.InEpsilon(t, 40.695/400*r.Metrics["emission_per_10_inferences"].Value, now.Metrics["emission_per_10_inferences"].Value, 1e-6)
	assert.InEpsilon(t, 400/40.695*r.Metrics["accuracy_per_emission"].Value, now.Metrics["accuracy_per_emission"].Value, 1e-6)
	assert.Equal(t, kWh, now.Metrics["emissions/energy_kwh"].Value)
	assert.Equal(t, "SWE", now.Tags["emissions.location"])
	assert.Contains(t, now.Tags["emissions.recomputed"], "before: ")
	assert.Empty(t, now.Tags["emissions.client_metrics"])

	url, _ := britain(t, 200)
	live := recompute(t, "--experiment", t.Name(), "--tracking-uri", p.url, "--live", "gb", "--live-url", url)
	assert.InEpsilon(t, 200*kWh, live[0].Now, 1e-6)

	for want, args := range map[string][]string{
		"none with the name or id": {"--experiment", "no such experiment", "--location", "BE"},
		"--location":               {"--experiment", t.Name(), "--location", "Swedn"},
		"recompute with what?":     {"--experiment", t.Name()},
		"one figure is the same":   {"--experiment", t.Name(), "--location", "BE", "--shift", "12h"},
		"give one of them":         {"--experiment", t.Name(), "--carbon-intensity", "5", "--profile", profile},
		"no such file":             {"--experiment", t.Name(), "--profile", "/no/such"},
	} {
		code, out, errs := command(t, nil, append([]string{"recompute", "--tracking-uri", p.url}, args...)...)
		assert.NotEqual(t, 0, code, want)
		assert.Empty(t, out)
		assert.Contains(t, errs, want)
		assert.Equal(t, 1, strings.Count(errs, "\n"), errs)
	}
}

func TestLocations(t *testing.T) {
	t.Parallel()
	code, out, _ := command(t, nil, "locations", "--format", "json", "--sort", "-intensity")
	require.Equal(t, 0, code)
	var all []struct{ Code string }
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	assert.Len(t, all, 213+104+149)
	code, out, _ = command(t, nil, "locations", "BEL")
	require.Equal(t, 0, code)
	for _, want := range []string{"natural gas", "weighted mean of the mix", "232.3", "138.1"} {
		assert.Contains(t, out, want)
	}
	for want, args := range map[string][]string{
		"did you mean Belgium (BEL)?":             {"locations", "Belgum"},
		"may be Georgia (GEO) or Georgia (US-GA)": {"locations", "Georgia"},
		"only code, name, intensity":              {"locations", "--sort", "size"},
		"did you mean Frankfurt (DEU)?":           {"--location", "Frankfrt"},
		"its key is missing":                      {"--location", "BE", "--live", "electricitymaps"},
		"allowed are electricitymaps, watttime":   {"--live", "nobody"},
		"give --live-zone":                        {"--location", "US-CA", "--live", "watttime"},
		"only rack or what the server has":        {"--embodied-server", "big"},
		"--embodied-kg: -1 is not allowed":        {"--embodied-kg", "-1"},
		"--lifespan-years: give --embodied-kg":    {"--lifespan-years", "3"},
	} {
		code, out, errs := command(t, []string{"ELECTRICITYMAPS_TOKEN=", "WATTTIME_USER="}, args...)
		assert.Equal(t, 2, code, args)
		assert.Empty(t, out, args)
		assert.Contains(t, errs, want)
		assert.Equal(t, 1, strings.Count(errs, "\n"), errs)
	}
}
