//go:build unix

package e2e

import (
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// secret is in everything that must not be shown; forged in everything that must not look like a line of the log.
const (
	secret = "S3CR3T"
	forged = "\nlevel=ERROR msg=F0RG3D \x1b[31mred\r\n\u2028"
)

// A proxy sees everybody's credentials. They are in no output of its whole life: logs at their finest, figures, files, errors,
// what a crash leaves. And what clients send never makes a line of its own in a log.
func TestNothingSecretIsShown(t *testing.T) {
	t.Parallel()
	b := startBetween(t)
	state := t.TempDir()
	env := []string{"HTTP_PROXY=http://me:" + secret + "@127.0.0.1:1", "GOTRACEBACK=system"}
	args := []string{"--upstream", b.url(), "--log-level", "debug", "--log-interval", "1s", "--state-dir", state}
	p := startProxyAt(t, env, args...)
	var shown strings.Builder // of what clients are told by the proxy itself

	ask := func(base string, credentials http.Header, method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		require.NoError(t, err)
		for k, v := range credentials {
			req.Header[k] = v
		}
		req.Header.Set("Content-Type", "application/json")
		req.Host = credentials.Get("Host")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(answer)
	}
	quoted := func(s string) string {
		q, err := json.Marshal(s)
		require.NoError(t, err)
		return string(q)
	}
	begin := func(base string, credentials http.Header) string {
		code, answer := ask(base, credentials, "POST", api+"runs/create?token="+secret,
			`{"experiment_id":"0","run_name":`+quoted(forged)+`,"tags":[{"key":"note","value":`+quoted(secret+forged)+`},{"key":"emissions.phase","value":`+quoted(forged)+`}]}`)
		require.Equal(t, 200, code, answer)
		var created struct {
			Run struct{ Info struct{ Run_id string } }
		}
		require.NoError(t, json.Unmarshal([]byte(answer), &created))
		return created.Run.Info.Run_id
	}
	var ids []string
	all := []http.Header{
		{"Authorization": {"Basic " + secret}}, {"Authorization": {"Bearer " + secret}, "X-Databricks-Org-Id": {"42"}}, {"Cookie": {"session=" + secret}},
		{"Authorization": {secret}, "Proxy-Authorization": {"Basic " + secret}, "X-Api-Key": {secret}},
	}
	for _, credentials := range all {
		id := begin(p.url, credentials)
		ids = append(ids, id)
		for _, c := range []request{
			post("runs/log-metric?token="+secret, `{"run_id":"`+id+`","key":"test_accuracy","value":0.5,"timestamp":1}`), post("runs/log-metric", `{"run_id":"`+id+`","key":`+quoted(secret+forged)+`,"value":1}`),
			post("runs/set-tag", `{"run_id":"`+id+`","key":"emissions.accuracy_metric","value":`+quoted(forged)+`}`), post("runs/log-batch", `{"run_id":`+quoted(secret+forged)+`}`),
			post("runs/update", `{"run_id":`+quoted(forged)+`,"status":"FINISHED"}`), post("runs/update", `{"run_id":"`+id+`","run_name":`+quoted(forged)+`}`), post("runs/update?token="+secret, "{"+secret),
			get(api + "runs/get?run_id=" + id + "&token=" + secret), get("/no/such/page?token=" + secret), {method: "PUT", path: "/api/2.0/mlflow-artifacts/artifacts/" + id + "/x?token=" + secret, body: secret},
			{method: "CONNECT", path: "/"},
		} {
			ask(p.url, credentials, c.method, c.path, c.body)
		}
		hostile := credentials.Clone()
		hostile.Set("Host", "evil.example")
		code, _ := ask(p.url, hostile, "GET", "/?token="+secret, "")
		assert.Equal(t, http.StatusForbidden, code)
		hostile.Set("Host", "")
	}
	eventually(t, "a live figure is logged", func() bool { return p.metric(`emissions_figures_total{result="written"}`) > 0 })

	// The server fails, also for an update that ends a run, whose figures then wait.
	b.goAway()
	for i, credentials := range all {
		for _, path := range []string{api + "runs/get?run_id=x&token=" + secret, "/%0Alevel=ERROR%20msg=F0RG3D%1B[31m?token=" + secret, "/emissions/?token=" + secret} {
			_, answer := ask(p.url, credentials, "GET", path, "")
			shown.WriteString(answer)
		}
		if i > 0 {
			_, answer := ask(p.url, credentials, "POST", api+"runs/update?token="+secret, finished(ids[i]))
			shown.WriteString(answer)
		}
	}
	b.comeBack()
	code, answer := ask(p.url, all[1], "POST", api+"runs/update", finished(ids[1]))
	require.Equal(t, 200, code, answer)
	ask(p.url, all[2], "POST", api+"runs/update", `{"run_id":"`+ids[2]+`","status":"FINISHED"`) // no JSON
	_, metrics := ask(p.admin, nil, "GET", "/metrics", "")
	for _, path := range []string{"/readyz?token=" + secret, "/no/such/page?token=" + secret} {
		_, answer := ask(p.admin, all[0], "GET", path, "")
		shown.WriteString(answer)
	}

	// It is killed, and what it had on disk is taken up by the next, which crashes.
	files := func() string {
		var content strings.Builder
		require.NoError(t, filepath.WalkDir(state, func(path string, entry fs.DirEntry, err error) error {
			content.WriteString(path + "\n")
			if err != nil || entry.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			content.Write(b)
			return err
		}))
		return content.String()
	}
	kept := files()
	p.stop()
	kept += files()
	again := startProxyAt(t, env, args...)
	ids = append(ids, begin(again.url, all[0]))
	for i, credentials := range all {
		ask(again.url, credentials, "POST", api+"runs/log-metric", `{"run_id":"`+ids[i]+`","key":"a","value":1,"timestamp":1}`)
	}
	kept += files()
	require.NoError(t, again.cmd.Process.Signal(syscall.SIGQUIT))
	select {
	case <-again.exited:
		again.code = 0 // that it ended in this way is what was wanted
	case <-time.After(20 * time.Second):
		t.Fatal("the proxy does not crash")
	}
	dump := strings.Join(again.lines(), "\n")
	require.Contains(t, dump, "goroutine 1 ")

	logs := strings.Join(p.lines(), "\n")
	require.Contains(t, logs, "level=DEBUG")
	for name, text := range map[string]string{"the log": logs, "/metrics": metrics, "the state folder": kept, "answers of our own": shown.String(), "the dump of a crash": dump} {
		assert.NotContains(t, text, secret, name)
		assert.NotEmpty(t, text, name)
	}
	head, _, _ := strings.Cut(dump, "SIGQUIT")
	for _, line := range append(p.lines(), strings.Split(strings.TrimSpace(head), "\n")...) {
		assert.True(t, strings.HasPrefix(line, "time="), "%q", line)
		assert.NotContains(t, line, "\x1b")
	}
	for _, id := range ids[:2] {
		for key, value := range of(t, id).Tags {
			if strings.HasPrefix(key, "emissions.") && key != "emissions.phase" && key != "emissions.accuracy_metric" {
				assert.NotContains(t, value, secret, key)
			}
		}
	}
}
