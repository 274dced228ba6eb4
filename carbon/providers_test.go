package carbon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// theirs makes a fake server of a provider.
func theirs(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return at
}

// The three answers of Electricity Maps: latest, history and past-range, with a null, an estimate, another zone's value,
// an offset and a finer granularity.
func TestElectricityMapsAnswers(t *testing.T) {
	t.Parallel()
	const latest = `{"zone":"BE","carbonIntensity":167,"datetime":"2026-11-25T12:00:00.000Z","updatedAt":"2026-11-25T12:41:02.531Z","createdAt":"2026-11-22T12:51:03.147Z",
		"emissionFactorType":"lifecycle","isEstimated":true,"estimationMethod":"TIME_SLICER_AVERAGE","temporalGranularity":"hourly"}`
	const history = `{"zone":"BE","temporalGranularity":"hourly","history":[
		{"zone":"BE","carbonIntensity":150,"datetime":"2026-11-25T10:00:00.000Z","emissionFactorType":"lifecycle","isEstimated":false,"estimationMethod":null},
		{"zone":"BE","carbonIntensity":null,"datetime":"2026-11-25T11:00:00.000Z","emissionFactorType":"lifecycle","isEstimated":false,"estimationMethod":null},
		{"zone":"FR","carbonIntensity":20,"datetime":"2026-11-25T09:00:00.000Z","emissionFactorType":"lifecycle","isEstimated":false,"estimationMethod":null},
		{"zone":"BE","carbonIntensity":99999,"datetime":"2026-11-25T08:00:00.000Z","emissionFactorType":"lifecycle","isEstimated":false,"estimationMethod":null}]}`
	const past = `{"zone":"BE","data":[
		{"zone":"BE","carbonIntensity":140,"datetime":"2026-10-25T02:00:00+02:00","emissionFactorType":"direct","isEstimated":false,"temporalGranularity":"hourly"},
		{"zone":"BE","carbonIntensity":141,"datetime":"2026-10-25T02:00:00+01:00","emissionFactorType":"direct","isEstimated":false,"temporalGranularity":"hourly"},
		{"zone":"BE","carbonIntensity":142,"datetime":"2026-11-25T11:05:00Z","emissionFactorType":"lifecycle","isEstimated":false,"temporalGranularity":"5_minutes"}]}`
	f, err := parseElectricityMaps("BE", []byte(latest))
	require.NoError(t, err)
	require.Len(t, f, 1)
	assert.Equal(t, Factor{Intensity: 167, Source: "Electricity Maps, zone BE", Start: moment(t, "2026-11-25T12:00:00Z"), End: moment(t, "2026-11-25T13:00:00Z"),
		Basis: Lifecycle, Signal: Average, Estimated: true}, f[0])
	assert.Equal(t, "lifecycle, average, estimated", f[0].Kind())

	f, err = parseElectricityMaps("BE", []byte(history))
	require.NoError(t, err)
	require.Len(t, f, 1, "the null, the other zone and the impossible value are none")
	assert.Equal(t, Intensity(150), f[0].Intensity)

	f, err = parseElectricityMaps("BE", []byte(past))
	require.NoError(t, err)
	require.Len(t, f, 3)
	assert.Equal(t, time.Hour, f[1].Start.Sub(f[0].Start), "02:00 comes twice when the clocks go back")
	assert.Equal(t, "direct, average", f[0].Kind())
	assert.Equal(t, 5*time.Minute, f[2].End.Sub(f[2].Start))

	for _, none := range []string{`{"zone":"BE","carbonIntensity":null,"datetime":"2026-11-25T12:00:00.000Z"}`, `{}`, `{"history":[]}`} {
		f, err = parseElectricityMaps("BE", []byte(none))
		assert.NoError(t, err)
		assert.Empty(t, f)
	}
	for _, garbage := range []string{``, `<html>`, `[]`, `{"carbonIntensity":"high"}`, `{"datetime":"now"}`} {
		_, err = parseElectricityMaps("BE", []byte(garbage))
		assert.Error(t, err, garbage)
		assert.NotContains(t, err.Error(), "<")
	}
}

func TestElectricityMapsIsAskedAsItsDocumentationSays(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var calls []string
	base := theirs(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "key-123", r.Header.Get("auth-token"))
		assert.Equal(t, "BE", r.URL.Query().Get("zone"))
		assert.Equal(t, "false", r.URL.Query().Get("shouldUseFallbackCallerLookup"), "never by the caller's address")
		mu.Lock()
		calls = append(calls, r.URL.Path)
		mu.Unlock()
		value := fmt.Sprintf(`{"zone":"BE","carbonIntensity":100,"datetime":%q,"isEstimated":false}`, time.Now().UTC().Truncate(time.Hour).Format(time.RFC3339))
		switch r.URL.Path {
		case "/v3/carbon-intensity/latest":
			_, _ = w.Write([]byte(value))
		case "/v3/carbon-intensity/history":
			_, _ = w.Write([]byte(`{"zone":"BE","history":[` + value + `]}`))
		case "/v3/carbon-intensity/past-range":
			start, err := time.Parse(time.RFC3339, r.URL.Query().Get("start"))
			assert.NoError(t, err)
			end, err := time.Parse(time.RFC3339, r.URL.Query().Get("end"))
			assert.NoError(t, err)
			assert.LessOrEqual(t, end.Sub(start), 10*24*time.Hour)
			w.WriteHeader(http.StatusUnauthorized) // the free plan
		}
	})
	p, err := NewElectricityMaps(base, "BE", "key-123")
	require.NoError(t, err)
	now := time.Now()
	f, err := p.Factors(context.Background(), now.Add(-24*time.Hour), now)
	require.NoError(t, err)
	assert.Len(t, f, 2)
	f, err = p.Factors(context.Background(), now.Add(-15*24*time.Hour), now)
	require.NoError(t, err, "what every plan has is still there")
	assert.Len(t, f, 2)
	_, err = p.Factors(context.Background(), now.Add(-15*24*time.Hour), now.Add(-10*24*time.Hour))
	assert.ErrorContains(t, err, "the key is not accepted")
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []string{
		"/v3/carbon-intensity/history", "/v3/carbon-intensity/latest",
		"/v3/carbon-intensity/past-range", "/v3/carbon-intensity/history", "/v3/carbon-intensity/latest", "/v3/carbon-intensity/past-range",
	}, calls)
}

const wattTimeAnswer = `{"data":[
	{"point_time":"2026-11-25T12:00:00+00:00","value":870.0,"imputed_data_used":false,"last_updated":"2026-11-25T12:11:00+00:00"},
	{"point_time":"2026-11-25T12:05:00+00:00","value":860.5,"imputed_data_used":true},
	{"point_time":"2026-11-25T12:10:00+00:00","value":null}],
	"meta":{"data_point_period_seconds":300,"region":"CAISO_NORTH","signal_type":"%s","units":"%s","model":{"date":"2026-03-01"},"warnings":[{"type":"EXAMPLE","message":"x"}]}}`

// lb/MWh are not g/kWh, and what one kWh more would emit is not what the mean kWh emits.
func TestWattTimeAnswers(t *testing.T) {
	t.Parallel()
	for signal, name := range map[Signal]string{Average: "co2_aoer", Marginal: "co2_moer"} {
		f, err := parseWattTime("CAISO_NORTH", signal, fmt.Appendf(nil, wattTimeAnswer, name, "lbs_co2_per_mwh"))
		require.NoError(t, err)
		require.Len(t, f, 2)
		assert.InDelta(t, 870*0.45359237, f[0].Intensity.GPerKWh(), 1e-9)
		assert.Equal(t, moment(t, "2026-11-25T12:05:00Z"), f[0].End.UTC())
		assert.Equal(t, "direct, CO2 only, "+string(signal), f[0].Kind())
		assert.True(t, f[1].Estimated)
		for _, other := range []struct{ region, name, units string }{
			{"PJM_NJ", name, "lbs_co2_per_mwh"}, {"CAISO_NORTH", "health_damage", "usd_per_mwh"}, {"CAISO_NORTH", map[string]string{"co2_aoer": "co2_moer", "co2_moer": "co2_aoer"}[name], "lbs_co2_per_mwh"},
		} {
			_, err := parseWattTime(other.region, signal, fmt.Appendf(nil, wattTimeAnswer, other.name, other.units))
			assert.Error(t, err, other)
		}
	}
	f, err := parseWattTime("CAISO_NORTH", Average, []byte(`{"data":[],"meta":{}}`))
	assert.NoError(t, err)
	assert.Empty(t, f)
	_, err = parseWattTime("CAISO_NORTH", Average, []byte(`{"data":[{"value":1}],"meta":{"units":"lbs_co2_per_mwh","region":"CAISO_NORTH","signal_type":"co2_aoer"}}`))
	assert.ErrorContains(t, err, "what period")
}

// A login lasts half an hour: it is made once, and anew when its token is refused.
func TestWattTimeLogsInOnceAndAgainWhenRefused(t *testing.T) {
	t.Parallel()
	var logins, asked atomic.Int64
	base := theirs(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			user, password, _ := r.BasicAuth()
			assert.Equal(t, "ann secret", user+" "+password)
			fmt.Fprintf(w, `{"token":"token-%d"}`, logins.Add(1))
			return
		}
		assert.Equal(t, "/v3/historical", r.URL.Path)
		assert.Equal(t, "co2_aoer", r.URL.Query().Get("signal_type"))
		if n := asked.Add(1); r.Header.Get("Authorization") != fmt.Sprintf("Bearer token-%d", logins.Load()) || n == 3 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, wattTimeAnswer, "co2_aoer", "lbs_co2_per_mwh")
	})
	p, err := NewWattTime(base, "CAISO_NORTH", Average, "ann", "secret")
	require.NoError(t, err)
	for range 3 {
		f, err := p.Factors(context.Background(), time.Now().Add(-time.Hour), time.Now())
		require.NoError(t, err)
		assert.Len(t, f, 2)
	}
	assert.EqualValues(t, 2, logins.Load())
}

// Great Britain's half-hours that are not measured yet have a forecast; one without either is a gap. The first is the one
// before what was asked for, as that API does.
func TestGBAnswers(t *testing.T) {
	t.Parallel()
	const answer = `{"data":[
		{"from":"2026-11-25T11:30Z","to":"2026-11-25T12:00Z","intensity":{"forecast":266,"actual":263,"index":"moderate"}},
		{"from":"2026-11-25T12:00Z","to":"2026-11-25T12:30Z","intensity":{"forecast":270,"actual":null,"index":"moderate"}},
		{"from":"2026-11-25T12:30Z","to":"2026-11-25T13:00Z","intensity":{"forecast":null,"actual":null,"index":null}}]}`
	base := theirs(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/intensity/2026-11-25T11:30Z/2026-11-25T13:10Z", r.URL.Path)
		_, _ = w.Write([]byte(answer))
	})
	p, err := NewGB(base)
	require.NoError(t, err)
	f, err := p.Factors(context.Background(), moment(t, "2026-11-25T11:40:00Z"), moment(t, "2026-11-25T13:10:00Z"))
	require.NoError(t, err)
	require.Len(t, f, 2)
	assert.Equal(t, Factor{Intensity: 263, Source: "GB Carbon Intensity", Start: moment(t, "2026-11-25T11:30:00Z"), End: moment(t, "2026-11-25T12:00:00Z"),
		Basis: DirectCO2, Signal: Average}, f[0])
	assert.Equal(t, "direct, CO2 only, average, estimated", f[1].Kind())
	for _, garbage := range []string{``, `{"data":{}}`, `{"data":[{"intensity":"x"}]}`} {
		_, err := parseGB([]byte(garbage))
		assert.Error(t, err, garbage)
	}
	f, err = parseGB([]byte(`{"data":[{"from":"x","to":"y","intensity":{"actual":5}},{"from":"2026-11-25T12:00Z","to":"2026-11-25T11:00Z","intensity":{"actual":5}},{"from":"2026-11-25T12:00Z","to":"2026-11-25T12:30Z","intensity":{"actual":-5}}]}`))
	assert.NoError(t, err)
	assert.Empty(t, f)
}

// Whatever a provider answers must end as an error that says what it was, and shows neither key nor answer.
func TestWhatProvidersRefuse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		why     string
		retry   time.Duration
	}{
		"401": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"message":"invalid token key-123"}`))
		}, "answered 401: the key is not accepted", 0},
		"404": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "answered 404: it does not know this zone", 0},
		"429": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "answered 429: too many requests", 2 * time.Minute},
		"500": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "answered 500", 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/elsewhere" { // which whoever follows would get the key
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}
		}, "answered 302", 0},
		"garbage": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x1f\x8b<key-123>")) }, "not what its documentation says", 0},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"data":[`))
		}, "read the answer", 0},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for block := make([]byte, 1<<16); r.Context().Err() == nil; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "too long", 0},
		"slow": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := theirs(t, c.handler)
			maps, err := NewElectricityMaps(base, "BE", "key-123")
			require.NoError(t, err)
			watt, err := NewWattTime(base, "CAISO_NORTH", Average, "ann", "key-123")
			require.NoError(t, err)
			britain, err := NewGB(base)
			require.NoError(t, err)
			for _, p := range []Provider{maps, watt, britain} {
				ctx := context.Background()
				if name == "slow" {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
					defer cancel()
				}
				f, err := p.Factors(ctx, time.Now().Add(-time.Hour), time.Now())
				assert.Empty(t, f)
				require.ErrorContains(t, err, c.why, p.Name())
				assert.NotContains(t, err.Error(), "key-123")
				var refused *RefusedError
				if c.retry > 0 && assert.ErrorAs(t, err, &refused) {
					assert.Equal(t, c.retry, refused.RetryAfter)
				}
			}
		})
	}
	now := moment(t, "2026-11-25T12:00:00Z")
	assert.Equal(t, time.Minute, retryAfter("Wed, 25 Nov 2026 12:01:00 GMT", now))
	for _, none := range []string{"", "soon", "-5", "Wed, 25 Nov 2026 11:00:00 GMT"} {
		assert.Zero(t, retryAfter(none, now), none)
	}
}

// A key that cannot be read, or a place that the provider does not know, is found before anything is asked.
func TestLiveFlags(t *testing.T) {
	t.Parallel()
	place := func(code string) Place {
		p, err := Locate(code)
		require.NoError(t, err)
		return p
	}
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	env := map[string]string{"ELECTRICITYMAPS_TOKEN": "key-123", "WATTTIME_USER": "ann", "WATTTIME_PASSWORD": "key-123"}
	for _, c := range []struct {
		live Live
		at   Place
		env  map[string]string
		name string
		err  string
	}{
		{Live{Name: "electricitymaps"}, place("BEL"), env, "Electricity Maps, zone BE", ""},
		{Live{Name: "electricitymaps"}, place("us-east-1"), env, "Electricity Maps, zone US-MIDA-PJM", ""},
		{Live{Name: "electricitymaps"}, place("eu-central-1"), env, "Electricity Maps, zone DE", ""},
		{Live{Name: "electricitymaps"}, place("azure:uksouth"), env, "Electricity Maps, zone GB", ""},
		{Live{Name: "electricitymaps"}, place("US-AL"), env, "", "give --live-zone"},
		{Live{Name: "electricitymaps"}, World(), env, "", "give --live-zone"},
		{Live{Name: "electricitymaps", Zone: "US-SE-SOCO"}, place("US-AL"), env, "Electricity Maps, zone US-SE-SOCO", ""},
		{Live{Name: "electricitymaps", KeyFile: file("key-123\n")}, place("BEL"), nil, "Electricity Maps, zone BE", ""},
		{Live{Name: "electricitymaps"}, place("BEL"), nil, "", "set ELECTRICITYMAPS_TOKEN or give --live-key-file"},
		{Live{Name: "electricitymaps", KeyFile: file("key-123\nand more")}, place("BEL"), nil, "", "does not hold a key on one line"},
		{Live{Name: "electricitymaps", KeyFile: "/does/not/exist"}, place("BEL"), env, "", "--live-key-file: open /does/not/exist"},
		{Live{Name: "electricitymaps", BaseURL: "ftp://x"}, place("BEL"), env, "", "is not the URL of a server"},
		{Live{Name: "watttime", Zone: "CAISO_NORTH"}, place("US-CA"), env, "WattTime, region CAISO_NORTH", ""},
		{Live{Name: "watttime-marginal", Zone: "CAISO_NORTH", KeyFile: file("ann:key-123")}, place("US-CA"), nil, "WattTime, region CAISO_NORTH", ""},
		{Live{Name: "watttime", Zone: "CAISO_NORTH", KeyFile: file("key-123")}, place("US-CA"), nil, "", "does not hold user:password"},
		{Live{Name: "watttime"}, place("US-CA"), env, "", "give --live-zone"},
		{Live{Name: "watttime", Zone: "CAISO_NORTH"}, place("US-CA"), nil, "", "set WATTTIME_USER and WATTTIME_PASSWORD"},
		{Live{Name: "gb"}, place("GB"), nil, "GB Carbon Intensity", ""},
		{Live{Name: "gb"}, place("aws:eu-west-2"), nil, "GB Carbon Intensity", ""},
		{Live{Name: "gb"}, World(), nil, "GB Carbon Intensity", ""},
		{Live{Name: "gb"}, place("FR"), nil, "", "Great Britain alone"},
		{Live{Name: "gb", Zone: "X"}, place("GB"), nil, "", "has no zones"},
		{Live{Name: "nobody"}, place("GB"), nil, "", "allowed are electricitymaps, watttime, watttime-marginal, gb"},
	} {
		f, err := c.live.Feed(c.at, func(name string) string { return c.env[name] }, nil)
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			assert.NotContains(t, err.Error(), "key-123")
			assert.NotContains(t, err.Error(), "\n")
			continue
		}
		require.NoError(t, err, c.live.Name)
		assert.Equal(t, c.name, f.provider.Name())
	}
	shown := fmt.Sprintf("%v %s %#v %q", Secret("key-123"), Secret("key-123"), Secret("key-123"), Secret("key-123"))
	assert.NotContains(t, shown, "key-123")
}

func fuzzAnswers(f *testing.F, seeds []string, parse func([]byte) ([]Factor, error)) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		factors, err := parse(body)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatal("more than one line")
		}
		values := series{}
		for _, v := range factors {
			if !believable(v.Intensity.GPerKWh()) || !v.Start.Before(v.End) || v.Source == "" {
				t.Fatalf("a figure that cannot be: %+v", v)
			}
			values.put(v)
		}
		for i := 1; i < len(values.factors); i++ {
			if values.factors[i].Start.Before(values.factors[i-1].End) {
				t.Fatal("figures overlap")
			}
		}
		if json.Valid(body) != (err == nil) && err == nil {
			t.Fatal("read what is no JSON")
		}
	})
}

func FuzzElectricityMaps(f *testing.F) {
	fuzzAnswers(f, []string{
		`{"zone":"BE","carbonIntensity":167,"datetime":"2026-11-25T12:00:00.000Z","emissionFactorType":"lifecycle","isEstimated":true,"temporalGranularity":"hourly"}`,
		`{"zone":"BE","history":[{"carbonIntensity":null,"datetime":"0001-01-01T00:00:00Z"},{"carbonIntensity":5,"datetime":"9999-12-31T23:59:59.9+23:59","temporalGranularity":"5_minutes"}]}`,
	}, func(b []byte) ([]Factor, error) { return parseElectricityMaps("BE", b) })
}

func FuzzWattTime(f *testing.F) {
	fuzzAnswers(f, []string{fmt.Sprintf(wattTimeAnswer, "co2_aoer", "lbs_co2_per_mwh"), `{"data":[{}],"meta":{"data_point_period_seconds":-1}}`},
		func(b []byte) ([]Factor, error) { return parseWattTime("CAISO_NORTH", Average, b) })
}

func FuzzGB(f *testing.F) {
	fuzzAnswers(f, []string{`{"data":[{"from":"2026-11-25T11:30Z","to":"2026-11-25T12:00Z","intensity":{"forecast":266,"actual":null,"index":"moderate"}}]}`}, parseGB)
}
