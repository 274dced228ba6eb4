package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// The tool that we are compared with, at the release that the figures are of.
const codeCarbon = "codecarbon==3.3.2"

// python is the interpreter of an environment that has CodeCarbon and nothing that it does not pull in itself.
var python = sync.OnceValues(func() (string, error) {
	cache, err := mlflow.CacheDir()
	if err != nil {
		return "", err
	}
	env, err := mlflow.SetupOnly(context.Background(), cache, []string{codeCarbon}, os.Stderr)
	return env.Python(), err
})

// offline keeps CodeCarbon from asking who is where: whatever is not on this machine is refused at once. Its settings
// are its defaults, so a configuration of the user's is hidden.
func offline(home string) []string {
	nowhere := "http://127.0.0.1:9"
	return append(os.Environ(), "HTTP_PROXY="+nowhere, "HTTPS_PROXY="+nowhere, "http_proxy="+nowhere, "https_proxy="+nowhere,
		"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "HOME="+home)
}

// use is some electricity.
type use struct {
	Joules    float64 `json:"joules"`
	PUE       float64 `json:"pue"`
	Intensity float64 `json:"intensity"` // gCO2e/kWh
}

type place struct {
	Code string `json:"code"`
	Name string `json:"name"`
}

// theirs is what CodeCarbon's classes answer.
type theirs struct {
	JoulesToKWh float64             `json:"joulesToKWh"`
	Counted     []float64           `json:"counted"`  // g, of energy that a counter gives in joules
	Modelled    []float64           `json:"modelled"` // g, of energy that a model gives as power over time
	PerKWh      map[string]*float64 `json:"perKWh"`   // g/kWh by our codes, nil where it has no figure
}

func askCodeCarbon(t *testing.T, uses []use) theirs {
	t.Helper()
	interpreter, err := python()
	require.NoError(t, err)
	var places []place
	for _, p := range carbon.Places() {
		places = append(places, place{p.Code, p.Name})
	}
	question, err := json.Marshal(map[string]any{"uses": uses, "places": places})
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), interpreter, filepath.Join("testdata", "grams.py"))
	cmd.Env = offline(t.TempDir())
	cmd.Stdin = bytes.NewReader(question)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var answer theirs
	require.NoError(t, json.Unmarshal(out, &answer), string(out))
	return answer
}

// The same joules at the same intensity are the same grams. CodeCarbon's factor from joules to kWh, which it takes for
// counters only, is 8e-7 too high: that is the whole difference.
func TestTheSameEnergyIsTheSameGramsAsCodeCarbons(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the comparison needs the real CodeCarbon")
	}
	var uses []use
	for _, joules := range []float64{1e-3, 1, 86.4, 3.6e6, 7.2e12} {
		for _, pue := range []float64{1, 1.1, 1.54} {
			for _, intensity := range []float64{0, 3.5, 475, 1100} {
				uses = append(uses, use{joules, pue, intensity})
			}
		}
	}
	answer := askCodeCarbon(t, uses)
	tooHigh := answer.JoulesToKWh * 3.6e6
	assert.InDelta(t, 1+8e-7, tooHigh, 1e-9)
	now := time.Now()
	for i, u := range uses {
		supply, err := carbon.NewSupply(carbon.World(), &u.Intensity, &u.PUE)
		require.NoError(t, err)
		ours := supply.Emissions(now, now.Add(time.Hour), meter.Energy(u.Joules).KWh()).Grams()
		assert.InDelta(t, answer.Counted[i], ours, 1e-6*ours, "%+v", u)
		assert.InDelta(t, answer.Counted[i]/tooHigh, ours, 1e-12*ours, "%+v, but for the constant", u)
		assert.InDelta(t, answer.Modelled[i], ours, 1e-12*ours, "%+v as power over time", u)
	}
}

// agreement counts our places of one kind by how CodeCarbon's own figure compares.
type agreement struct{ same, different, unknown int }

// compare sets CodeCarbon's figures for all of our places beside ours. The same means to half of the last digit that our
// tables have.
func compare(t *testing.T, perKWh map[string]*float64) map[string]agreement {
	t.Helper()
	kinds := map[string]agreement{}
	for _, p := range carbon.Places() {
		if p.Code == "US-usa" { // all states together, under a name that CodeCarbon does not have
			continue
		}
		kind := "countries"
		if provider, _, ok := strings.Cut(p.Code, ":"); ok {
			kind = provider + " regions"
		} else if country, _, ok := strings.Cut(p.Code, "-"); ok {
			kind = "parts of " + country
		}
		supply, err := carbon.NewSupply(p, nil, new(1.0))
		require.NoError(t, err)
		ours := supply.Emissions(time.Time{}, time.Time{}, 1).Grams()
		a := kinds[kind]
		switch figure := perKWh[p.Code]; {
		case figure == nil:
			a.unknown++
		case math.Abs(*figure-ours) < 0.00051:
			a.same++
		default:
			a.different++
		}
		kinds[kind] = a
	}
	return kinds
}

// Where the tables have one origin, they agree: all countries but the Central African Republic, for which CodeCarbon
// has 0 g and we the mean of its mix, the states of the USA, China's provinces, and the bidding zones of Sweden and
// Norway. Canada's provinces differ, since CodeCarbon counts coal, oil and gas only; so do Google's regions, which have
// another year's figures. It has none of its own for AWS and Azure, and takes the country's.
func TestTablesAgreeWithCodeCarbons(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the comparison needs the real CodeCarbon")
	}
	kinds := compare(t, askCodeCarbon(t, []use{}).PerKWh)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%s: %s", kind, kinds[kind])
	}
	assert.Equal(t, agreement{same: 212, different: 1}, kinds["countries"])
	for _, country := range []string{"US", "CN", "SE", "NO"} {
		a := kinds["parts of "+country]
		assert.Positive(t, a.same, country)
		assert.Zero(t, a.different+a.unknown, country)
	}
}

// String says how many agree.
func (a agreement) String() string {
	s := fmt.Sprintf("%d the same", a.same)
	if a.different > 0 {
		s += fmt.Sprintf(", %d different", a.different)
	}
	if a.unknown > 0 {
		s += fmt.Sprintf(", %d that CodeCarbon has no figure for", a.unknown)
	}
	return s
}
