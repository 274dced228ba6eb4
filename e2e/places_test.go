package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
)

// twelvePlaces are those of the picture in docs/intensity.md.
var twelvePlaces = []string{"SE-SE3", "CA-QC", "FRA", "gcp:europe-west1", "BEL", "US-CA", "GBR", "aws:us-east-1", "DEU", "CHN", "POL", "IND"}

// bar is one place in the picture.
type bar struct {
	code, name, kind string
	grams            float64
}

// One real run, what it would have emitted in twelve places, and a picture of that. E2E_PLACES names the folder to put
// the picture into.
func TestPlacesPicture(t *testing.T) {
	t.Parallel()
	folder, trees := os.Getenv("E2E_PLACES"), "4000"
	if folder == "" {
		folder, trees = t.TempDir(), "50"
	}
	p := startProxy(t)
	r := of(t, output(t, p.python("places.py", t.Name(), trees))["run"])
	var bars []bar
	for _, place := range twelvePlaces {
		code, out, errs := command(t, nil, "recompute", "--format", "json", "--experiment", t.Name(), "--tracking-uri", p.url, "--location", place)
		require.Equal(t, 0, code, errs)
		var rows []struct {
			Now  float64 `json:"now_g"`
			Kind string  `json:"kind"`
		}
		require.NoError(t, json.Unmarshal([]byte(out), &rows))
		require.Len(t, rows, 1)
		known, err := carbon.Locate(place)
		require.NoError(t, err)
		assert.InEpsilon(t, r.Metrics["emissions/energy_kwh"].Value*max(1, known.PUE)*known.Intensity.GPerKWh(), rows[0].Now, 1e-6, place)
		name, _, _ := strings.Cut(known.Name, " (")
		bars = append(bars, bar{place, name, strings.TrimSuffix(rows[0].Kind, ", average"), rows[0].Now})
	}
	slices.SortFunc(bars, func(a, b bar) int { return cmp.Compare(a.grams, b.grams) })
	about := fmt.Sprintf("a random forest of %s trees, trained in %.0f s with %.3g Wh (%s; CPU by %s)", trees, r.Metrics["emissions/duration_s"].Value,
		1000*r.Metrics["emissions/energy_kwh"].Value, r.Tags["emissions.status"], r.Tags["emissions.method.cpu"])
	picture := drawPlaces("One run's emissions in twelve places", about, bars)
	assert.Equal(t, 12, strings.Count(picture, `class="bar"`))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "places.svg"), []byte(picture), 0o644))
}

// drawPlaces draws bars of grams. The background is white, so that a dark page does not swallow the text; the kinds are told
// apart by words too, and not by colour alone.
func drawPlaces(title, subtitle string, bars []bar) string {
	const width, left, right, top, row = 900, 300, 210, 90, 30
	colours := map[string]string{"lifecycle": "#0072b2", "direct": "#e69f00"} // of Okabe and Ito's palette
	highest := bars[len(bars)-1].grams
	height := top + row*len(bars) + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s" font-family="sans-serif" font-size="15" fill="#222">`+"\n", width, height, title)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="20" y="34" font-size="19" font-weight="bold">%s</text>`+"\n", title)
	fmt.Fprintf(&b, `<text x="20" y="58" font-size="14">%s</text>`+"\n", subtitle)
	for i, p := range bars {
		y := top + row*i
		length := math.Max(1, p.grams/highest*(width-left-right))
		colour := colours["lifecycle"]
		if strings.HasPrefix(p.kind, "direct") {
			colour = colours["direct"]
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s, %s</text>`, left-10, y+16, p.name, p.code)
		fmt.Fprintf(&b, `<rect class="bar" x="%d" y="%d" width="%.1f" height="20" fill="%s"/>`, left, y, length, colour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.3g mg <tspan font-size="12" fill="#555">%s</tspan></text>`+"\n", left+length+8, y+16, 1000*p.grams, p.kind)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
