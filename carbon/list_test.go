package carbon

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every row of the three tables must be in every form of the list, with its figure unchanged.
func TestListsHoldEveryPlace(t *testing.T) {
	t.Parallel()
	places := Places()
	require.NoError(t, Sort(places, "-intensity"))
	for i := range places[1:] {
		assert.GreaterOrEqual(t, places[i].Intensity, places[i+1].Intensity)
	}
	var table, list, asJSON strings.Builder
	require.NoError(t, WriteList(&table, places, "table"))
	require.NoError(t, WriteList(&list, places, "csv"))
	require.NoError(t, WriteList(&asJSON, places, "json"))
	assert.Equal(t, 1+213+104+149, strings.Count(table.String(), "\n"))
	rows, err := csv.NewReader(strings.NewReader(list.String())).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+213+104+149)
	var objects []struct {
		Code string
		G    float64 `json:"g_per_kwh"`
		PUE  *float64
	}
	require.NoError(t, json.Unmarshal([]byte(asJSON.String()), &objects))
	require.Len(t, objects, 213+104+149)
	for i, p := range places {
		assert.Equal(t, p.Code, rows[i+1][0])
		assert.Equal(t, number(p.Intensity.GPerKWh()), rows[i+1][4])
		assert.Equal(t, p.Intensity.GPerKWh(), objects[i].G)
		assert.Equal(t, p.PUE > 0, objects[i].PUE != nil, "an overhead that is not known is no 0")
	}
	for _, order := range []string{"code", "name", "intensity", "year", "level", "pue", "-name"} {
		assert.NoError(t, Sort(places, order))
	}
	assert.ErrorContains(t, Sort(places, "size"), "only code, name, intensity")
}

// The classic method beside the published figure: 138.1 g/kWh are published for Belgium, its mix gives 232.3.
func TestACountryShowsItsMixAndBothFigures(t *testing.T) {
	t.Parallel()
	belgium, err := Locate("BEL")
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, WritePlace(&out, belgium, "table"))
	for _, want := range []string{"natural gas  17.20  20.9 %    743", "nuclear  33.42  40.6 %     29", "weighted mean of the mix  82.40          232.3", "published                 138.1",
		"the published figure is used", "gcp:europe-west1"} {
		assert.Contains(t, out.String(), want)
	}
	out.Reset()
	require.NoError(t, WritePlace(&out, belgium, "json"))
	var object struct {
		Published, Mean float64
		Mix             []listedShare
		Places          []struct{ Code string }
	}
	text := strings.NewReplacer("published_g_per_kwh", "published", "mix_mean_g_per_kwh", "mean").Replace(out.String())
	require.NoError(t, json.Unmarshal([]byte(text), &object))
	assert.Equal(t, 138.107, object.Published)
	assert.InDelta(t, 232.3, object.Mean, 0.05)
	var share float64
	for _, s := range object.Mix {
		share += s.Share
	}
	assert.InDelta(t, 1, share, 1e-9)
	assert.Len(t, object.Places, 2)

	central, err := Locate("CAF")
	require.NoError(t, err)
	out.Reset()
	require.NoError(t, WritePlace(&out, central, "table"))
	assert.Contains(t, out.String(), "published                  none")
	assert.Contains(t, out.String(), "the weighted mean is used, since no figure is published")
	region, err := Locate("us-east-1")
	require.NoError(t, err)
	out.Reset()
	require.NoError(t, WritePlace(&out, region, "csv"))
	assert.Equal(t, 2, strings.Count(out.String(), "\n"))
}

// SCI's M: 1,300 kg over four years, half of the machine for an hour.
func TestEmbodiedCarbon(t *testing.T) {
	t.Parallel()
	e, err := EmbodiedGiven(1300, 4)
	require.NoError(t, err)
	assert.InDelta(t, 1300e3/(4*365.2425*24)/2, e.Share(time.Hour, 0.5).Grams(), 1e-9)
	assert.Equal(t, e.Share(time.Hour, 1), e.Share(time.Hour, 1.01), "a share is never more than all")
	assert.Zero(t, Embodied{}.Share(time.Hour, 1))
	assert.Equal(t, "1300 kg over 4 years (set by --embodied-kg)", e.Describe())
	server, err := ParseServer("2cpu,8gpu,1024gb")
	require.NoError(t, err)
	assert.InDelta(t, 1000e3+100e3+8*150e3+533e3/384*(1024-16), server.Total.Grams(), 1e-6)
	base, err := ParseServer("rack")
	require.NoError(t, err)
	assert.Equal(t, 1000e3, base.Total.Grams())
	for _, bad := range []string{"", "2cpu,x", "-1cpu", "1e9gb", "0cpu", "2cpu,2cpu", "NaNgb"} {
		_, err := ParseServer(bad)
		assert.ErrorContains(t, err, "--embodied-server", bad)
	}
	for _, bad := range [][2]float64{{-1, 4}, {1, 0}, {1, 101}} {
		_, err := EmbodiedGiven(bad[0], bad[1])
		assert.Error(t, err)
	}
}
