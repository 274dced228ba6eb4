package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

const (
	// securedHosts has all that the server's patterns can do; proxies come with 127.0.0.1, which they send.
	securedHosts = "127.0.0.1:*,mlflow.example,*.corp.example,h[0-9]*,h[!0-9]?*,[[]::1]:*"
	// securedKeepAlive is how long the server keeps an idle connection, in seconds: gunicorn's default.
	securedKeepAlive = 2
	adminPassword    = "correct horse battery"
	userPassword     = "another long password"
)

var securedServer *mlflow.Server // stopped when the tests end

func listenTo(t *testing.T, s *http.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }()
	return "http://" + l.Addr().String()
}

// secured is one MLflow server that asks for users and passwords, checks Hosts, and keeps idle connections for a short time.
var secured = sync.OnceValues(func() (*mlflow.Server, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(scratch, "secured")
	packages := filepath.Join(dir, "packages")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// What mlflow[auth] adds. It is not in the shared environment, which demo uses, too.
	out, err := exec.Command(env.Python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--target", packages, "Flask-WTF==1.3.0", "WTForms==3.3.2").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("install Flask-WTF: %w\n%s", err, out)
	}
	// A check of a password takes a tenth of a second unless it is remembered.
	config := "[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///auth.db\nadmin_username = admin\n" +
		"authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 600\n"
	if err := os.WriteFile(filepath.Join(dir, "auth.ini"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	command := filepath.Join(dir, "mlflow")
	script := fmt.Sprintf("#!/bin/sh\nPYTHONPATH='%s' MLFLOW_AUTH_CONFIG_PATH='%s' MLFLOW_AUTH_ADMIN_PASSWORD='%s' MLFLOW_FLASK_SERVER_SECRET_KEY=x exec '%s' \"$@\"\n",
		packages, filepath.Join(dir, "auth.ini"), adminPassword, env.MLflow())
	if err := os.WriteFile(command, []byte(script), 0o700); err != nil {
		return nil, err
	}
	securedServer, err = mlflow.StartServer(context.Background(), mlflow.ServerConfig{Command: command, Dir: dir, Lean: true,
		Args: []string{"--app-name", "basic-auth", "--allowed-hosts", securedHosts, "--uvicorn-opts", fmt.Sprint("--timeout-keep-alive ", securedKeepAlive)}})
	return securedServer, err
})

// startSecured returns the secured server's URL.
func startSecured(t *testing.T) *url.URL {
	t.Helper()
	setup(t)
	s, err := secured()
	require.NoError(t, err)
	return s.URL()
}

// user is somebody who calls the API.
type user struct {
	t              *testing.T
	name, password string
}

// call sends a request as this user and returns the answer.
func (u user) call(method, target, body string) (int, string) {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), method, target, strings.NewReader(body))
	require.NoError(u.t, err)
	req.Header.Set("Content-Type", "application/json")
	if u.name != "" {
		req.SetBasicAuth(u.name, u.password)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(u.t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(u.t, err)
	return res.StatusCode, string(answer)
}

// must is a call that succeeds.
func (u user) must(method, target, body string) string {
	u.t.Helper()
	code, answer := u.call(method, target, body)
	require.Equal(u.t, 200, code, "%s %s: %s", method, target, answer)
	return answer
}

// written is a batch of our figures that came to the server.
type written struct {
	by   string
	code int
}

// Who may do what is MLflow's business. A user without the right neither ends a session, nor takes anything from its figures, nor
// sees them; and what we write, we write with the credentials of somebody who may.
func TestAuthStaysMLflows(t *testing.T) {
	t.Parallel()
	upstream := startSecured(t)
	var mu sync.Mutex
	var batches []written
	recorder := http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ModifyResponse: func(res *http.Response) error {
			if strings.HasSuffix(res.Request.URL.Path, "/runs/log-batch") {
				name, _, _ := res.Request.BasicAuth()
				mu.Lock()
				defer mu.Unlock()
				batches = append(batches, written{name, res.StatusCode})
			}
			return nil
		},
	}}
	between := listenTo(t, &recorder)
	p := startProxyAt(t, nil, "--upstream", between, "--log-interval", "1s")
	count := func(w written) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, b := range batches {
			if b == w {
				n++
			}
		}
		return n
	}

	admin := user{t, "admin", adminPassword}
	owner, reader, stranger, nobody := user{t, "owner", userPassword}, user{t, "reader", userPassword}, user{t, "stranger", userPassword}, user{t, "", ""}
	for _, u := range []user{owner, reader, stranger} {
		admin.must("POST", p.url+api+"users/create", fmt.Sprintf(`{"username":%q,"password":%q}`, u.name, u.password))
	}
	var experiment struct {
		ID string `json:"experiment_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(owner.must("POST", p.url+api+"experiments/create", `{"name":"owners"}`)), &experiment))
	owner.must("POST", p.url+"/api/3.0/mlflow/users/permissions/grant", `{"username":"reader","resource_type":"experiment","resource_id":"`+experiment.ID+`","permission":"READ"}`)
	var created struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			} `json:"info"`
		} `json:"run"`
	}
	require.NoError(t, json.Unmarshal([]byte(owner.must("POST", p.url+api+"runs/create", `{"experiment_id":"`+experiment.ID+`"}`)), &created))
	began := time.Now()
	id := created.Run.Info.ID
	eventually(t, "the first figure is logged", func() bool { return count(written{"owner", 200}) > 0 })

	for _, u := range []user{reader, stranger, nobody} {
		for _, c := range []request{
			post("runs/update", `{"run_id":"`+id+`","status":"FINISHED","end_time":1}`), post("runs/update", `{"run_id":"`+id+`","status":5}`),
			post("runs/update", `{"run_id":"`+id+`","run_name":"mine"}`), post("runs/update", `{"run_id":"`+id+`","status":"RUNNING"}`),
			post("runs/set-tag", `{"run_id":"`+id+`","key":"emissions.skip","value":"true"}`), post("runs/set-tag", `{"run_id":"`+id+`","key":"emissions.phase","value":"inference"}`),
			post("runs/log-metric", `{"run_id":"`+id+`","key":"emissions_g","value":1,"timestamp":1}`), post("runs/log-batch", `{"run_id":"`+id+`","tags":[{"key":"emissions.skip","value":"true"}]}`),
			post("runs/delete", `{"run_id":"`+id+`"}`), post("runs/restore", `{"run_id":"`+id+`"}`),
		} {
			code, answer := u.call(c.method, p.url+c.path, c.body)
			wantCode, want := u.call(c.method, upstream.String()+c.path, c.body)
			assert.GreaterOrEqual(t, code, 401, "%s: %s", u.name, c.body)
			assert.LessOrEqual(t, code, 403, "%s: %s", u.name, c.body)
			assert.Equal(t, wantCode, code, "%s: %s", u.name, c.body)
			assert.Equal(t, want, answer, "%s: %s", u.name, c.body)
		}
	}
	logged := count(written{"owner", 200})
	eventually(t, "figures go on to be logged, with the owner's credentials", func() bool { return count(written{"owner", 200}) > logged+1 })
	assert.EqualValues(t, 1, p.metric("emissions_running_sessions"))

	for _, u := range []user{stranger, nobody} {
		for _, path := range []string{"runs/get?run_id=" + id, "metrics/get-history?run_id=" + id + "&metric_key=emissions_g"} {
			code, answer := u.call("GET", p.url+api+path, "")
			assert.Contains(t, []int{401, 403}, code, path)
			assert.NotContains(t, answer, "value", path)
		}
		_, answer := u.call("POST", p.url+api+"runs/search", `{"experiment_ids":["`+experiment.ID+`"]}`)
		assert.NotContains(t, answer, "emissions")
		code, answer := u.call("GET", p.url+"/emissions/api/experiments/"+experiment.ID+"/runs", "")
		assert.NotEqual(t, 200, code)
		assert.NotContains(t, answer, "emissions_g")
	}
	assert.Contains(t, reader.must("GET", p.url+api+"runs/get?run_id="+id, ""), "emissions_g", "who may read the run sees them")

	lasted := time.Since(began).Seconds()
	owner.must("POST", p.url+api+"runs/update", `{"run_id":"`+id+`","status":"FINISHED","end_time":1}`)
	var got struct {
		Run struct {
			Info struct{ Status string }
			Data struct {
				Metrics []struct {
					Key   string
					Value float64
				}
				Tags []struct{ Key, Value string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(owner.must("GET", upstream.String()+api+"runs/get?run_id="+id, "")), &got))
	assert.Equal(t, "FINISHED", got.Run.Info.Status)
	m, tags := map[string]float64{}, map[string]string{}
	for _, v := range got.Run.Data.Metrics {
		m[v.Key] = v.Value
	}
	for _, v := range got.Run.Data.Tags {
		tags[v.Key] = v.Value
	}
	assert.Equal(t, "measured", tags["emissions.status"])
	assert.GreaterOrEqual(t, m["emissions/duration_s"], lasted, "the session went on through all that was refused")
	assert.Positive(t, m["emissions_g"])
	assert.NotContains(t, m, "emissions/inference_g")
	assert.Zero(t, count(written{"reader", 200}))
	assert.Zero(t, count(written{"stranger", 200}))
	code, _ := reader.call("POST", p.url+api+"runs/update", `{"run_id":"`+id+`","status":"RUNNING"}`)
	assert.Equal(t, 403, code)
	assert.EqualValues(t, 0, p.metric("emissions_running_sessions"), "a refused resume begins nothing")
	assert.NotContains(t, strings.Join(p.lines(), "\n"), "password")
}

// --allowed-hosts of the proxy means what --allowed-hosts of the server means: for each Host, the two answer alike.
func TestAllowedHostsAsInMLflow(t *testing.T) {
	t.Parallel()
	upstream := startSecured(t)
	p := startProxyAt(t, nil, "--upstream", upstream.String(), "--allowed-hosts", securedHosts)
	usual := startProxyAt(t, nil, "--upstream", upstream.String())
	ask := func(base, path, host string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		require.NoError(t, err)
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return fmt.Sprintln(res.StatusCode, res.Header.Get("Content-Type"), string(body))
	}
	const path = api + "experiments/get?experiment_id=0"
	refused := 0
	for _, host := range []string{
		"127.0.0.1:1", "127.0.0.1", "mlflow.example", "mlflow.example:80", "MLFLOW.example", "a.corp.example", "a.b.corp.example", "corp.example", "a.corp.example:80", ".corp.example",
		"h1", "h1x", "hx", "hxy", "hxyz", "h", "[::1]:5", "[::1]", "evil.example", "localhost", "10.1.2.3",
	} {
		want := ask(upstream.String(), path, host)
		assert.Equal(t, want, ask(p.url, path, host), host)
		if strings.Contains(want, "rebinding") {
			refused++
		}
		assert.Equal(t, ask(upstream.String(), "/health", host), ask(p.url, "/health", host), host)
		assert.Equal(t, ask(upstream.String(), "/version", host), ask(p.url, "/version", host), host)
	}
	assert.Equal(t, 11, refused)
	assert.Equal(t, ask(upstream.String(), path, "evil.example"), ask(usual.url, path, "evil.example"), "refused by default, in the server's words")
	assert.Contains(t, ask(usual.url, path, "localhost"), "401", "that is the server's answer, which is sent a Host that it allows")
	assert.Contains(t, strings.Join(usual.lines(), "\n"), "host=evil.example")
}

// A server closes what was idle for too long; a POST that is sent at this very moment must not become a 502. A stock reverse
// proxy answers so to 4 % of them.
func TestConnectionsThatTheServerCloses(t *testing.T) {
	t.Parallel()
	upstream := startSecured(t)
	p := startProxyAt(t, nil, "--upstream", upstream.String())
	answers := make(chan int, 200)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			for range cap(answers) / 20 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+api+"runs/create", strings.NewReader(`{"experiment_id":"none"}`))
				if err != nil {
					return
				}
				req.Header.Set("Content-Type", "application/json")
				req.SetBasicAuth("admin", adminPassword)
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				answers <- res.StatusCode
				time.Sleep(securedKeepAlive*time.Second + time.Duration(rand.IntN(41)-20)*time.Millisecond) // this is what is tested
			}
		})
	}
	group.Wait()
	close(answers)
	n := 0
	for code := range answers {
		n++
		assert.Contains(t, []int{400, 404}, code, "the server's own")
	}
	assert.Equal(t, cap(answers), n)
	assert.Zero(t, p.metric("emissions_upstream_errors_total"))
}
