package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The page shows everybody what MLflow would show them, and nothing else: on a real server with users and rights.
func TestReportShowsWhatItsReaderMaySee(t *testing.T) {
	t.Parallel()
	upstream := startSecured(t)
	p := startProxyAt(t, nil, "--upstream", upstream.String())
	admin := user{t, "admin", adminPassword}
	owner, stranger, nobody := user{t, "pages-owner", userPassword}, user{t, "pages-stranger", userPassword}, user{t, "", ""}
	for _, u := range []user{owner, stranger} {
		admin.must("POST", p.url+api+"users/create", fmt.Sprintf(`{"username":%q,"password":%q}`, u.name, u.password))
	}
	var experiment struct {
		ID string `json:"experiment_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(owner.must("POST", p.url+api+"experiments/create", `{"name":"confidential"}`)), &experiment))
	var created struct {
		Run struct {
			Info struct {
				RunID string `json:"run_id"`
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(owner.must("POST", p.url+api+"runs/create", `{"experiment_id":"`+experiment.ID+`","run_name":"secret plan"}`)), &created))
	run := created.Run.Info.RunID
	owner.must("POST", p.url+api+"runs/update", `{"run_id":"`+run+`","status":"FINISHED","end_time":1}`)

	for _, path := range []string{"/emissions/", "/emissions/?experiment=" + experiment.ID, "/emissions/runs.csv?experiment=" + experiment.ID,
		"/emissions/api/experiments/" + experiment.ID + "/runs", "/emissions/api/runs/" + run + "/curve"} {
		code, page := owner.call("GET", p.url+path, "")
		assert.Equal(t, 200, code, path)
		if path == "/emissions/" {
			assert.Contains(t, page, "confidential")
		}
		code, page = stranger.call("GET", p.url+path, "")
		assert.NotContains(t, page, "secret plan", path)
		assert.NotContains(t, page, "confidential", path)
		if path != "/emissions/" { // where the stranger sees no experiment
			assert.True(t, code == 403 || code == 200, "%s: %d", path, code)
		}
		code, page = nobody.call("GET", p.url+path, "")
		assert.Equal(t, 401, code, path)
		assert.NotContains(t, page, "secret plan", path)
	}
	res, err := http.Get(p.url + "/emissions/")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Contains(t, res.Header.Get("WWW-Authenticate"), "Basic", "so that a browser asks for the password")
	_, page := owner.call("GET", p.url+"/emissions/?experiment="+experiment.ID, "")
	assert.Contains(t, page, "secret plan")
	code, out, errs := command(t, []string{"MLFLOW_TRACKING_URI=" + p.url, "MLFLOW_TRACKING_USERNAME=" + owner.name, "MLFLOW_TRACKING_PASSWORD=" + userPassword}, "report", "confidential")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "secret plan")
	code, _, errs = command(t, []string{"MLFLOW_TRACKING_URI=" + p.url}, "report", "confidential")
	assert.Equal(t, 1, code)
	assert.Contains(t, errs, "401")
}
