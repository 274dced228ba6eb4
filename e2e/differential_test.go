package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// request is one of the corpus. RUN, OTHER, EXPERIMENT and NAME in it stand for what each side has of its own.
type request struct {
	method, path string
	header       string // further lines, each with its end
	body         string
	chunked      bool
}

const api = "/api/2.0/mlflow/"

// post is a call with a JSON body.
func post(name, body string) request {
	return request{method: "POST", path: api + name, header: "Content-Type: application/json\r\n", body: body}
}

func get(path string) request { return request{method: "GET", path: path} }

func utf16le(s string) string {
	var b strings.Builder
	b.WriteString("\xFF\xFE")
	for _, r := range s {
		b.WriteByte(byte(r))
		b.WriteByte(0)
	}
	return b.String()
}

// corpus is of every kind that MLflow's clients, its pages and broken clients send. Its order matters: what it does to
// the run builds up.
var corpus = []request{
	get("/health"), get("/version"), get("/"), get("/static-files/nothing.js"), get("/no/such/page"), {method: "HEAD", path: "/health"}, {method: "OPTIONS", path: "/health"},
	{method: "DELETE", path: "/health"}, {method: "PATCH", path: api + "runs/create"},
	get(api + "runs/get?run_id=RUN"), get(api + "runs/get?run_uuid=RUN"), get(api + "runs/get"), get(api + "runs/get?run_id=none"), get("/ajax-api/2.0/mlflow/runs/get?run_id=RUN"),
	get("/api/2.0/preview/mlflow/runs/get?run_id=RUN"), get("//api/2.0/mlflow/runs/get?run_id=RUN"), get("/api//2.0/mlflow/runs/get?run_id=RUN"), get("/api/2.0/mlflow/runs/%67et?run_id=RUN"),
	get("/api/2.0/mlflow/runs%2Fget?run_id=RUN"), get(api + "runs/get?run_id=RUN&a=%zz&b;c"), get(api + "runs/get/?run_id=RUN"), get("/api/2.0/../2.0/mlflow/runs/get?run_id=RUN"),
	get(api + "experiments/get?experiment_id=EXPERIMENT"), get(api + "experiments/get-by-name?experiment_name=none"), get(api + "metrics/get-history?run_id=RUN&metric_key=a"),
	post("experiments/search", `{"max_results":0}`), post("runs/search", `{"experiment_ids":["EXPERIMENT"],"filter":"metrics.none > 1"}`), post("runs/search", `{"experiment_ids":["EXPERIMENT"],"filter":"broken ="}`),
	post("runs/log-metric", `{"run_id":"RUN","key":"a","value":1,"timestamp":1,"step":0}`), post("runs/log-metric", `{"run_id":"RUN","key":"a","value":"2","timestamp":"2","step":"1"}`),
	post("runs/log-metric", `{"run_id":"RUN","key":"n","value":"NaN","timestamp":1}`), post("runs/log-metric", `{"run_id":"RUN","key":"n2","value":NaN,"timestamp":1}`),
	post("runs/log-metric", `{"run_id":"RUN","key":"../bad","value":1,"timestamp":1}`), post("runs/log-metric", `{"run_id":"RUN"}`), post("runs/log-metric", `{"run_id":"none","key":"a","value":1,"timestamp":1}`),
	post("runs/log-metric", ``), post("runs/log-metric", `{`), post("runs/log-metric", `[]`), post("runs/log-metric", `null`), post("runs/log-metric", "\x00\xFF"),
	post("runs/log-batch", `{"run_id":"RUN","metrics":[{"key":"b","value":1,"timestamp":1,"step":0}],"params":[{"key":"p","value":"1"}],"tags":[{"key":"t","value":"v"}]}`),
	post("runs/log-batch", `{"run_id":"RUN","params":[{"key":"p","value":"2"}]}`), post("runs/log-batch", `{"run_id":"RUN","metrics":"x"}`), post("runs/log-batch", `{"run_id":"RUN"}`),
	post("runs/log-batch", `{"run_id":"RUN","tags":[{"key":"long","value":"`+strings.Repeat("x", 9000)+`"}]}`),
	post("runs/log-batch", `{"run_id":"RUN","metrics":[`+strings.TrimSuffix(strings.Repeat(`{"key":"m","value":1,"timestamp":1,"step":0},`, 1001), ",")+`]}`),
	post("runs/set-tag", `{"run_id":"RUN","key":"t","value":"v"}`), post("runs/set-tag", `{"run_id":"RUN","value":"v"}`), post("runs/set-tag", `{"run_uuid":"RUN","key":"u","value":"é😀"}`), post("runs/delete-tag", `{"run_id":"RUN","key":"t"}`),
	post("runs/log-parameter", `{"run_id":"RUN","key":"q","value":"1"}`), post("runs/log-inputs", `{"run_id":"RUN","datasets":[{"tags":[],"dataset":{"name":"d","digest":"1","source_type":"s","source":"x"}}]}`),
	post("runs/log-inputs", `{"run_id":"none","datasets":[]}`),
	{method: "POST", path: api + "runs/log-metric", header: "Content-Type: text/plain\r\n", body: `{"run_id":"RUN","key":"a","value":1,"timestamp":1}`},
	{method: "POST", path: api + "runs/set-tag", body: `{"run_id":"RUN","key":"t","value":"v"}`},
	{method: "POST", path: api + "runs/set-tag", header: "Content-Type: application/x-www-form-urlencoded\r\n", body: "run_id=RUN&key=t&value=v"},
	{method: "POST", path: api + "runs/set-tag", header: "Content-Type: application/json\r\n", body: `{"run_id":"RUN","key":"t","value":"v"}`, chunked: true},
	{method: "POST", path: api + "runs/set-tag", header: "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", body: "\x1f\x8b broken"},
	{method: "POST", path: api + "runs/set-tag", header: "Content-Type: application/json\r\nExpect: 100-continue\r\n", body: `{"run_id":"RUN","key":"t","value":"v"}`},
	{method: "POST", path: api + "runs/set-tag", header: "Content-Type: application/json\r\nOrigin: http://evil.example\r\n", body: `{"run_id":"RUN","key":"t","value":"v"}`},
	{method: "GET", path: api + "runs/get?run_id=RUN", header: "Accept-Encoding: gzip, deflate, br\r\n"},
	{method: "GET", path: api + "runs/get?run_id=RUN", header: "Authorization: Basic bm9ib2R5Om5vdGhpbmc=\r\nCookie: a=b\r\n"},
	{method: "PUT", path: "/api/2.0/mlflow-artifacts/artifacts/NAME/a.txt", body: "hello"}, get("/api/2.0/mlflow-artifacts/artifacts/NAME/a.txt"),
	{method: "GET", path: "/api/2.0/mlflow-artifacts/artifacts/NAME/a.txt", header: "Range: bytes=1-2\r\n"}, get("/api/2.0/mlflow-artifacts/artifacts?path=NAME"), get("/api/2.0/mlflow-artifacts/artifacts/%2e%2e/x"),
	{method: "PUT", path: "/api/2.0/mlflow-artifacts/artifacts/NAME/c.txt", body: "chunked", chunked: true}, {method: "DELETE", path: "/api/2.0/mlflow-artifacts/artifacts/NAME/a.txt"},
	post("runs/update", `{"run_id":"RUN","run_name":"renamed"}`), post("runs/update", `{"run_id":"RUN","status":"finished"}`), post("runs/update", `{"run_id":"RUN","status":"Killed"}`),
	post("runs/update", `{"run_id":"RUN","status":null}`), post("runs/update", `{"run_id":"RUN","status":[]}`), post("runs/update", `{"run_id":"none","status":"FINISHED"}`), post("runs/update", `{"status":"FINISHED"}`),
	post("runs/update", utf16le(`{"run_id":"RUN","run_name":"wide"}`)), post("runs/update", "\xEF\xBB\xBF"+`{"run_id":"RUN","run_name":"marked"}`), post("runs/update", `"{\"run_id\":\"RUN\",\"run_name\":\"double\"}"`),
	post("runs/%75pdate", `{"run_id":"RUN","run_name":"encoded"}`), post("runs/update", `{"run_id":"x","run_id":"RUN","status":"RUNNING","status":"FAILED","end_time":5}`),
	post("runs/update", `{"run_id":"RUN","status":"RUNNING","end_time":5}`), post("runs/update", `{"runId":"RUN","status":4,"end_time":6}`), post("runs/update", `{"run_id":"RUN","status":"3","end_time":7}`),
	post("runs/update", `{"run_id":"RUN","status":"FINISHED","end_time":8}`), post("runs/delete", `{"run_id":"OTHER"}`), post("runs/update", `{"run_id":"OTHER","status":"FINISHED"}`),
	post("runs/log-metric", `{"run_id":"OTHER","key":"a","value":1,"timestamp":1}`), post("runs/restore", `{"run_id":"OTHER"}`), post("runs/delete", `{"run_id":"none"}`), post("runs/restore", ``),
	post("runs/create", `{"experiment_id":"EXPERIMENT","start_time":1,"tags":[{"key":"k","value":"v"}],"run_name":"x"}`), post("runs/create", `{"experiment_id":"999999"}`), post("runs/create", `{"experiment_id":7}`),
	post("runs/create", ``), post("runs/create", `{"experiment_id":"EXPERIMENT","tags":[{"value":"no key"}]}`),
	{method: "POST", path: "/ajax-api/2.0/mlflow/runs/create", header: "Content-Type: application/json\r\n", body: `{"experiment_id":"EXPERIMENT","run_name":"y"}`},
}

// side is the server itself, or the proxy, with runs of its own.
type side struct {
	addr, upstream string
	values         *strings.Replacer
	names          []string
}

func newSide(t *testing.T, base, name string, server string) side {
	t.Helper()
	find := func(answer, pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(answer)
		require.NotNil(t, m, answer)
		return m[1]
	}
	// Made past the proxy, so that the differential is of forwarding: what metering writes would differ.
	_, answer := call(t, http.MethodPost, server+api+"experiments/create", `{"name":"`+t.Name()+name+`"}`)
	experiment := find(answer, `"experiment_id":\s*"(\d+)"`)
	ids := []string{"EXPERIMENT", experiment, "NAME", name}
	for _, word := range []string{"RUN", "OTHER"} {
		_, answer := call(t, http.MethodPost, server+api+"runs/create", `{"experiment_id":"`+experiment+`","start_time":1,"run_name":"r"}`)
		ids = append(ids, word, find(answer, `"run_id":\s*"(\w+)"`))
	}
	return side{addr: strings.TrimPrefix(base, "http://"), upstream: strings.TrimPrefix(server, "http://"), values: strings.NewReplacer(ids...), names: ids}
}

// send writes a request as bytes, and reads the answer.
func (s side) send(t *testing.T, r request) (status string, header http.Header, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(60*time.Second)))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s", r.method, s.values.Replace(r.path), s.addr, r.header)
	content := s.values.Replace(r.body)
	switch {
	case strings.HasPrefix(r.body, "\xFF\xFE"): // two bytes a letter
		content = utf16le(s.values.Replace(narrow(r.body)))
		fallthrough
	case !r.chunked && (content != "" || r.method == "POST"):
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(content), content)
	case r.chunked:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(content), content)
	default:
		b.WriteString("\r\n")
	}
	_, err = io.WriteString(conn, b.String())
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: r.method})
	require.NoError(t, err, "%s %s", r.method, r.path)
	for res.StatusCode == http.StatusContinue {
		res, err = http.ReadResponse(in, &http.Request{Method: r.method})
		require.NoError(t, err)
	}
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.Status, res.Header, string(answer)
}

func narrow(wide string) string {
	var b strings.Builder
	for i := 2; i < len(wide); i += 2 {
		b.WriteByte(wide[i])
	}
	return b.String()
}

var times = regexp.MustCompile(`(_time"?:\s*)\d+|("(?:run_name|value)":\s*")[a-z]+-[a-z]+-\d+`)

// same takes out what is each side's own: ids, names, ports and times.
func (s side) same(text string) string {
	for i := 0; i < len(s.names); i += 2 {
		if len(s.names[i+1]) > 5 {
			text = strings.ReplaceAll(text, s.names[i+1], s.names[i])
		}
	}
	text = strings.NewReplacer(s.addr, "ADDR", s.upstream, "ADDR").Replace(text) // a redirect's page has the upstream's own name in it
	text = regexp.MustCompile(`(experiment_id"?:\s*"?)`+s.names[1]+`\b`).ReplaceAllString(text, "${1}EXPERIMENT")
	text = regexp.MustCompile(`mlflow-artifacts:/\d+`).ReplaceAllString(text, "mlflow-artifacts:/EXPERIMENT")
	text = regexp.MustCompile(`\[parameters: .*?\)\]`).ReplaceAllString(text, "") // of SQL, in an error
	text = regexp.MustCompile(`\b[0-9a-f]{32}\b`).ReplaceAllString(text, "ID")
	return times.ReplaceAllString(text, "$1$2")
}

// Every answer is what the server itself would have said.
func TestDifferential(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	_, upstream, _ := setup(t)
	direct := newSide(t, upstream.String(), "directly", upstream.String())
	proxied := newSide(t, p.url, "proxied", upstream.String())
	require.GreaterOrEqual(t, len(corpus), 60)
	statuses := map[string]int{}
	for i, r := range corpus {
		name := fmt.Sprintf("%d: %s %s %.120s", i, r.method, r.path, r.body)
		wantStatus, wantHeader, wantBody := direct.send(t, r)
		status, header, body := proxied.send(t, r)
		statuses[wantStatus]++
		assert.Equal(t, wantStatus, status, name)
		if _, encoded := wantHeader["Content-Encoding"]; !encoded {
			assert.Equal(t, direct.same(wantBody), proxied.same(body), name)
		}
		for own, h := range map[*side]http.Header{&direct: wantHeader, &proxied: header} {
			delete(h, "Date")
			delete(h, "Connection")
			delete(h, "Last-Modified")
			delete(h, "Etag")
			for k, v := range h {
				h[k] = []string{own.same(strings.Join(v, "|"))}
			}
			if len(wantBody) != len(body) { // names differ in length
				delete(h, "Content-Length")
			}
		}
		assert.Equal(t, wantHeader, header, name)
	}
	t.Logf("%d requests: %v", len(corpus), statuses)
	a, b := of(t, direct.values.Replace("RUN")), of(t, proxied.values.Replace("RUN"))
	assert.Equal(t, a.Status, b.Status)
	assert.Equal(t, a.Metrics["a"].Value, b.Metrics["a"].Value)
}
