package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A dashboard rots silently: a panel whose metric was renamed is just empty. So every name and every label value that it
// asks for must stand in what the real proxy shows.
func TestGrafanaDashboard(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	b, err := os.ReadFile("../deploy/grafana/mlflow-emissions-proxy.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	require.NoError(t, json.Unmarshal(b, &dashboard))
	var expressions []string
	for _, v := range dashboard.Templating.List {
		expressions = append(expressions, v.Definition)
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, panel := range dashboard.Panels {
		assert.False(t, ids[panel.ID], "the id of %s is another's, too", panel.Title)
		ids[panel.ID] = true
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
		at := panel.GridPos
		assert.LessOrEqual(t, at.X+at.W, 24, panel.Title)
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				assert.Empty(t, taken[[2]int{x, y}], "%s lies on it", panel.Title)
				taken[[2]int{x, y}] = panel.Title
			}
		}
	}
	shown := p.series()
	name := regexp.MustCompile(`\b(emissions|process)_[a-z_]+`)
	label := regexp.MustCompile(`\b(owner|result|component|kind)="([^"]*)"`)
	used := map[string]bool{}
	for _, e := range expressions {
		for _, metric := range name.FindAllString(e, -1) {
			used[metric] = true
			found := false
			for series := range shown {
				series, labels, _ := strings.Cut(series, "{")
				matches := true
				for _, l := range label.FindAllString(e, -1) {
					matches = matches && (strings.Contains(labels, l) || !strings.Contains(e, metric+`{job=~"$job",instance=~"$instance",`+l))
				}
				found = found || series == metric && matches
			}
			assert.True(t, found, "%s in %s", metric, e)
		}
	}
	assert.Greater(t, len(used), 5)
}
