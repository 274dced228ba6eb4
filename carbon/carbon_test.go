package carbon

import (
	"encoding/csv"
	"math"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// table reads an embedded file again, by other means than the package's.
func readCSV(t *testing.T, file string) []map[string]string {
	t.Helper()
	f, err := os.Open("data/" + file)
	require.NoError(t, err)
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	var out []map[string]string
	for _, l := range lines[1:] {
		m := map[string]string{}
		for i, k := range lines[0] {
			m[k] = l[i]
		}
		out = append(out, m)
	}
	return out
}

func TestEveryRowOfEveryTableIsAPlace(t *testing.T) {
	t.Parallel()
	countries, subdivisions, regions := readCSV(t, "countries.csv"), readCSV(t, "subdivisions.csv"), readCSV(t, "cloud_regions.csv")
	assert.Len(t, countries, 213)
	assert.Len(t, subdivisions, 104)
	assert.Len(t, regions, 149)
	check := func(code, figure string) Place {
		p, err := Locate(code)
		require.NoError(t, err)
		if figure != "" && figure != "0.0" {
			v, err := strconv.ParseFloat(figure, 64)
			require.NoError(t, err)
			assert.Equal(t, v, p.Intensity.GPerKWh(), code)
		}
		assert.Positive(t, p.Intensity.GPerKWh(), code)
		assert.NotEmpty(t, p.Name, code)
		assert.NotEmpty(t, p.Source, code)
		assert.Greater(t, p.Year, 2000, code)
		return p
	}
	for _, c := range countries {
		assert.Equal(t, check(c["alpha3"], c["g_per_kwh"]), check(c["alpha2"], c["g_per_kwh"]))
	}
	for _, s := range subdivisions {
		check(s["code"], s["g_per_kwh"])
	}
	for _, r := range regions {
		p := check(r["provider"]+":"+r["region"], r["g_per_kwh"])
		if r["pue"] != "" {
			assert.GreaterOrEqual(t, p.PUE, 1.0)
		}
	}
	assert.Len(t, Places(), 213+104+149)
}

// The classic method: the sources' factors weighted by their share. It must give a plausible figure where one is
// published, too, or a column is matched with the wrong factor.
func TestMeanOfAMix(t *testing.T) {
	t.Parallel()
	fields := map[string]string{"alpha3": "XXX", "alpha2": "XX", "name": "X", "year": "2022", "coal_twh": "1", "oil_twh": "0", "gas_twh": "1", "nuclear_twh": "1",
		"hydro_twh": "0", "solar_twh": "0", "wind_twh": "1", "bioenergy_twh": "0", "other_renewable_twh": "0", "total_twh": "4", "g_per_kwh": ""}
	p := country(row{"countries.csv", fields}, tables().factors)
	assert.InDelta(t, (995+743+29+26)/4.0, p.Intensity.GPerKWh(), 1e-9)
	assert.Contains(t, p.Source, "mean of the country's mix 2022")
	missing := 0
	for _, c := range readCSV(t, "countries.csv") {
		if c["g_per_kwh"] == "0.0" || c["g_per_kwh"] == "" {
			missing++
			p, err := Locate(c["alpha3"])
			require.NoError(t, err)
			assert.Contains(t, p.Source, "mean of the country's mix")
			assert.InDelta(t, 26, p.Intensity.GPerKWh(), 1e-9, "water only")
		}
	}
	assert.Equal(t, 1, missing, "the Central African Republic")
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]struct {
		g      float64
		source string
	}{
		"us-al":             {323.854, "eGRID2023"},
		"gcp:africa-south1": {656.85, "Google Cloud region carbon data 2024"},
		"be":                {0, "Our World in Data"},
		"SE-SE3":            {0, "ENTSO-E"},
		"aws:us-east-1":     {0, "Virginia, where the region stands: EPA eGRID2023"},
		"azure:westeurope":  {0, "Netherlands, where the region stands"},
		"gcp:europe-west1":  {0, "Google"},
		" US-CA ":           {0, "direct"},
	} {
		p, err := Locate(code)
		require.NoError(t, err, code)
		if want.g > 0 {
			assert.Equal(t, want.g, p.Intensity.GPerKWh(), code)
		}
		assert.Contains(t, p.Source, want.source, code)
	}
	w := World()
	assert.Equal(t, 475.0, w.Intensity.GPerKWh())
	assert.Contains(t, w.Source, "no location is known")
}

func TestAnUnknownPlaceNamesItsNeighbours(t *testing.T) {
	t.Parallel()
	_, err := Locate("Belgum")
	assert.ErrorContains(t, err, "did you mean Belgium (BEL)?")
	_, err = Locate("gcp:europe-wst1")
	assert.ErrorContains(t, err, "gcp:europe-west1")
	assert.ErrorContains(t, err, `"gcp:europe-wst1" is in no table`)
	_, err = Locate("")
	assert.Error(t, err)
	_, err = Locate("qqqqqqqqqqqqqqqqqqq")
	assert.NotContains(t, err.Error(), "did you mean")
}

func TestSupply(t *testing.T) {
	t.Parallel()
	region, err := Locate("aws:us-east-1")
	require.NoError(t, err)
	f := func(v float64) *float64 { return &v }
	now := time.Now()
	for _, c := range []struct {
		forced, pue *float64
		want        float64
	}{
		{nil, nil, 2 * region.PUE * region.Intensity.GPerKWh()},
		{f(100), nil, 2 * region.PUE * 100},
		{f(100), f(1.5), 300},
		{f(0), f(1), 0},
	} {
		s, err := NewSupply(region, c.forced, c.pue)
		require.NoError(t, err)
		assert.InDelta(t, c.want, s.Emissions(now, now.Add(time.Second), 2).Grams(), 1e-9)
	}
	s, err := NewSupply(World(), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, 1.0, s.PUE())
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1)} {
		_, err := NewSupply(region, f(bad), nil)
		assert.ErrorContains(t, err, "--carbon-intensity")
		_, err = NewSupply(region, nil, f(bad))
		assert.ErrorContains(t, err, "--pue")
	}
	_, err = NewSupply(region, nil, f(0.99))
	assert.ErrorContains(t, err, "--pue")
}
