// Package mlflow makes the few calls of MLflow's REST API that the proxy needs itself, and sets up and runs a private
// MLflow server for serve, demo and the tests.
package mlflow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Client makes calls of our own to a tracking server. It may be used from any goroutine.
type Client struct {
	base *url.URL
	host string
	http *http.Client
}

// NewClient returns a client of the server at base. host, if not empty, is the Host that is sent.
func NewClient(base *url.URL, host string, rt http.RoundTripper) *Client {
	return &Client{base: base, host: host, http: &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // credentials go nowhere else
	}}
}

// IsBaseURL says whether a URL can be a server's: http or https, a host, and a path prefix if the server has one.
func IsBaseURL(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.RawQuery == "" && u.Fragment == ""
}

// Caller is how a client's request reached the API, and with which credentials: our own calls copy both. It lives in
// memory only.
type Caller struct {
	header http.Header
	prefix string // of the decoded path, before "/api/"
}

// credentials are the headers that say who calls, and in which workspace.
var credentials = []string{"Authorization", "X-Mlflow-Workspace", "X-Databricks-Org-Id"}

// CallerOf returns who sent a request of MLflow's API.
func CallerOf(r *http.Request) Caller {
	c := Caller{header: http.Header{}}
	for _, name := range credentials {
		if v := r.Header.Values(name); len(v) > 0 {
			c.header[name] = v
		}
	}
	if v := r.Header.Values("Cookie"); len(v) > 0 && c.header["Authorization"] == nil {
		c.header["Cookie"] = v
	}
	for _, mount := range []string{"/api/2.0/", "/ajax-api/2.0/", "/api/3.0/", "/ajax-api/3.0/", "/v1/traces"} {
		if i := strings.LastIndex(r.URL.Path, mount); i >= 0 {
			c.prefix = r.URL.Path[:i]
			break
		}
	}
	return c
}

// Key tells callers apart, so that nothing that was read for one is given to another. It shows no credential.
func (c Caller) Key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", c.prefix, c.header)) // fmt sorts a map's keys
	return hex.EncodeToString(sum[:])
}

// LogValue is slog's: a credential is never logged.
func (c Caller) LogValue() slog.Value { return slog.StringValue("caller") }

// String never shows a credential.
func (c Caller) String() string { return "caller" }

// GoString never shows a credential.
func (c Caller) GoString() string { return "caller" }

// Run is a run as the server has it.
type Run struct {
	ID, ExperimentID, Name, Status string
	User, ArtifactURI              string
	Start, End                     time.Time         // zero if there is none
	Metrics                        map[string]Metric // the latest of each key
	Params                         map[string]string
	Tags                           map[string]string
	ModelInputs, ModelOutputs      []string // ids of models that it used, and that it made
}

// Metric is one value of a metric.
type Metric struct {
	Key       string
	Value     float64
	Timestamp int64 // ms since 1970
	Step      int64
}

// Tag is a tag of a run.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// APIError is the server's own refusal.
type APIError struct {
	StatusCode    int
	Code, Message string
	RetryAfter    time.Duration // 0 if the server does not say
	Challenge     string        // what a browser needs to ask for a password: WWW-Authenticate
}

// Error names the status and the server's own words.
func (e *APIError) Error() string {
	return fmt.Sprintf("the MLflow server answered %d %s: %s", e.StatusCode, e.Code, e.Message)
}

// Run reads a run, with the latest value of each metric. It is an *APIError if the server refuses.
func (c *Client) Run(ctx context.Context, caller Caller, id string) (Run, error) {
	var answer struct {
		Run wireRun `json:"run"`
	}
	err := c.call(ctx, caller, http.MethodGet, "runs/get?run_id="+url.QueryEscape(id), nil, &answer)
	if err != nil {
		return Run{}, fmt.Errorf("read run %s: %w", id, err)
	}
	return answer.Run.run(), nil
}

// LogBatch sends a body that Batch made. It is an *APIError if the server refuses.
func (c *Client) LogBatch(ctx context.Context, caller Caller, body []byte) error {
	if err := c.call(ctx, caller, http.MethodPost, "runs/log-batch", body, nil); err != nil {
		return fmt.Errorf("log figures: %w", err)
	}
	return nil
}

// maxTag is the longest value of a tag that every server takes; newer ones take 8,000.
const maxTag = 5000

// Batch encodes metrics and tags once, so that every try sends the same bytes: the server drops exact duplicates.
func Batch(runID string, metrics []Metric, tags []Tag) ([]byte, error) {
	type metric struct {
		Key       string  `json:"key"`
		Value     float64 `json:"value"`
		Timestamp int64   `json:"timestamp"`
		Step      int64   `json:"step"`
	}
	body := struct {
		RunID   string   `json:"run_id"`
		Metrics []metric `json:"metrics"`
		Tags    []Tag    `json:"tags"`
	}{runID, []metric{}, []Tag{}}
	for _, m := range metrics {
		body.Metrics = append(body.Metrics, metric(m))
	}
	for _, t := range tags {
		for len(t.Value) > maxTag {
			_, size := utf8.DecodeLastRuneInString(t.Value)
			t.Value = t.Value[:len(t.Value)-size]
		}
		body.Tags = append(body.Tags, t)
	}
	return json.Marshal(body)
}

// maxAnswer bounds what is read of an answer: a run may have very many metrics.
const maxAnswer = 32 << 20

// call sends one request of the tracking API and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, caller Caller, method, name string, body []byte, out any) error {
	path, query, _ := strings.Cut(name, "?")
	return c.send(ctx, caller, method, "mlflow/"+path, query, "application/json", body, out)
}

// send sends one request under the API's path and decodes the answer into out, unless that is nil.
func (c *Client) send(ctx context.Context, caller Caller, method, path, query, contentType string, body []byte, out any) error {
	u := *c.base
	u.Path = strings.TrimSuffix(c.base.Path, "/") + caller.prefix + "/api/2.0/" + path
	u.RawPath, u.RawQuery = "", query
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range caller.header {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header["Idempotency-Key"] = []string{} // not sent: tells the transport that sending again does no harm
	if c.host != "" {
		req.Host = c.host
	}
	res, err := c.http.Do(req)
	if err != nil {
		// An error of http.Client names the whole URL; the run's id in it is all that would be of use.
		var reason *url.Error
		if asURLError(err, &reason) {
			err = reason.Err
		}
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return apiError(res, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(withoutBareNumbers(answer), out); err != nil {
		return fmt.Errorf("the server's answer is not what MLflow says: %w", err)
	}
	return nil
}

func asURLError(err error, target **url.Error) bool {
	e, ok := err.(*url.Error)
	*target = e
	return ok
}

func apiError(res *http.Response, body []byte) error {
	e := &APIError{StatusCode: res.StatusCode, Challenge: res.Header.Get("WWW-Authenticate")}
	var said struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) == nil {
		e.Code, e.Message = said.Code, said.Message
	}
	if len(e.Message) > 300 {
		e.Message = strings.ToValidUTF8(e.Message[:300], "") + "..."
	}
	after := res.Header.Get("Retry-After") // seconds, or a date
	if s, err := strconv.ParseInt(after, 10, 32); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		e.RetryAfter = max(0, time.Until(at))
	}
	return e
}

// withoutBareNumbers puts quotes around NaN and Infinity outside of strings, which Python writes as they are and JSON
// does not know.
func withoutBareNumbers(b []byte) []byte {
	if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
		return b
	}
	out := make([]byte, 0, len(b)+64)
	inside := false
	for i := 0; i < len(b); i++ {
		switch {
		case inside && b[i] == '\\' && i+1 < len(b):
			out = append(out, b[i], b[i+1])
			i++
			continue
		case b[i] == '"':
			inside = !inside
		case !inside:
			if word := bareNumber(b[i:]); word != "" {
				out = append(append(append(out, '"'), word...), '"')
				i += len(word) - 1
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}

func bareNumber(b []byte) string {
	for _, word := range []string{"NaN", "-Infinity", "Infinity"} {
		if bytes.HasPrefix(b, []byte(word)) {
			return word
		}
	}
	return ""
}

// wireRun is a run as answers have it. Numbers may be strings.
type wireRun struct {
	Info struct {
		RunID        string     `json:"run_id"`
		RunUUID      string     `json:"run_uuid"`
		RunName      string     `json:"run_name"`
		ExperimentID string     `json:"experiment_id"`
		UserID       string     `json:"user_id"`
		Status       string     `json:"status"`
		StartTime    wireNumber `json:"start_time"`
		EndTime      wireNumber `json:"end_time"`
		ArtifactURI  string     `json:"artifact_uri"`
	} `json:"info"`
	Data struct {
		Metrics []wireMetric `json:"metrics"`
		Params  []Tag        `json:"params"` // a param looks like a tag
		Tags    []Tag        `json:"tags"`
	} `json:"data"`
	Inputs struct {
		Models []wireModel `json:"model_inputs"`
	} `json:"inputs"`
	Outputs struct {
		Models []wireModel `json:"model_outputs"`
	} `json:"outputs"`
}

type wireModel struct {
	ID string `json:"model_id"`
}

// wireMetric is a metric as answers have it.
type wireMetric struct {
	Key       string     `json:"key"`
	Value     wireNumber `json:"value"`
	Timestamp wireNumber `json:"timestamp"`
	Step      wireNumber `json:"step"`
}

func (m wireMetric) metric() Metric {
	return Metric{Key: m.Key, Value: float64(m.Value), Timestamp: int64(m.Timestamp), Step: int64(m.Step)}
}

func (w wireRun) run() Run {
	r := Run{ID: w.Info.RunID, ExperimentID: w.Info.ExperimentID, Name: w.Info.RunName, Status: w.Info.Status,
		User: w.Info.UserID, ArtifactURI: w.Info.ArtifactURI, Start: fromMillis(w.Info.StartTime), End: fromMillis(w.Info.EndTime),
		Metrics: map[string]Metric{}, Params: map[string]string{}, Tags: map[string]string{}}
	if r.ID == "" {
		r.ID = w.Info.RunUUID
	}
	for _, m := range w.Data.Metrics {
		r.Metrics[m.Key] = m.metric()
	}
	for _, p := range w.Data.Params {
		r.Params[p.Key] = p.Value
	}
	for _, t := range w.Data.Tags {
		r.Tags[t.Key] = t.Value
	}
	for _, m := range w.Inputs.Models {
		r.ModelInputs = append(r.ModelInputs, m.ID)
	}
	for _, m := range w.Outputs.Models {
		r.ModelOutputs = append(r.ModelOutputs, m.ID)
	}
	return r
}

// fromMillis reads a time in ms since 1970; 0 and what is no number are no time.
func fromMillis(n wireNumber) time.Time {
	if !(n > 0) {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// wireNumber is a number, or a string that holds one; what is neither is NaN.
type wireNumber float64

// UnmarshalJSON is json.Unmarshaler's.
func (n *wireNumber) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil {
		v = math.NaN()
	}
	*n = wireNumber(v)
	return nil
}
