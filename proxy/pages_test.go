package proxy

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// Only what is under /emissions/ is ours to answer: all else is the server's, however much it looks like it.
func TestOnlyOurOwnPathIsAnswered(t *testing.T) {
	t.Parallel()
	var client *mlflow.Client
	b := newBench(t, func(c *Config) {
		c.Pages = func(given *mlflow.Client) http.Handler {
			client = given
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ours") })
		}
	})
	without := newBench(t, nil)
	for path, ours := range map[string]bool{
		"/emissions/": true, "/emissions/api/experiments/1/runs": true, "/emissions/static/page.js": true,
		"/emissions": false, "/emissionsx/": false, "/Emissions/": false, "/x/emissions/": false, "//emissions/": false, "/": false, "/health": false, "/version": false,
	} {
		assert.Equal(t, ours, text(t, do(t, http.MethodGet, b.url+path, nil, nil)) == "ours", path)
		assert.NotEqual(t, "ours", text(t, do(t, http.MethodGet, without.url+path, nil, nil)), path)
	}
	id := b.create("")
	run, err := client.Run(t.Context(), mlflow.Caller{}, id)
	require.NoError(t, err)
	assert.Equal(t, id, run.ID, "what is given asks the upstream")
}
