package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traceBody is a trace as MLflow 3.17.2's client writes it, with what differs between cases.
func traceBody(state, duration, metadata, tags string) string {
	return fmt.Sprintf(`{"trace": {"trace_info": {"trace_id": "tr-1a8ae2feccb7bcc42d756367cb582371",
		"trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}},
		"request_time": "2026-11-25T00:31:35.166Z", %s "state": %q,
		"trace_metadata": {"mlflow.trace_schema.version": "3", "mlflow.traceInputs": "{\"q\": \"a\"}"%s},
		"tags": {"mlflow.traceName": "predict_fn"%s}, "request_preview": "{\"q\": \"a\"}"}}}`, duration, state, metadata, tags)
}

// What is no prediction of the run's must not be counted as one: it would make each prediction look cheaper than it is.
func TestStartedTrace(t *testing.T) {
	t.Parallel()
	const took, run = `"execution_duration": "0.100s",`, `, "mlflow.sourceRun": "r1"`
	for _, c := range []struct {
		name, body string
		want       bool
		evaluation bool
	}{
		{"a traced function in a run", traceBody("OK", took, run, ""), true, false},
		{"without a run", traceBody("OK", took, "", ""), false, false},
		{"failed", traceBody("ERROR", took, run, ""), false, false},
		{"goes on", traceBody("IN_PROGRESS", "", run, ""), false, false},
		{"an evaluation's item", traceBody("OK", took, run, `, "mlflow.eval.requestId": "e8867035-4579-460a-8dd5-7d274b6a08c6"`), true, true},
		{"an evaluation's item with its output in the data", traceBody("OK", took, run,
			`, "mlflow.eval.requestId": "48cb2ee52afeba73cb4b439fe176f6c8", "mlflow.traceName": "root_span"`), false, false},
		{"a function named so, outside of an evaluation", traceBody("OK", took, run, `, "mlflow.traceName": "root_span"`), true, false},
		{"a scorer's", traceBody("OK", took, run, `, "mlflow.trace.sourceScorer": "exact"`), false, false},
		{"protobuf's other names", strings.NewReplacer("trace_info", "traceInfo", "trace_id", "traceId", "request_time", "requestTime",
			"execution_duration", "executionDuration", "trace_metadata", "traceMetadata").Replace(traceBody("OK", took, run, "")), true, false},
		{"no time", strings.Replace(traceBody("OK", took, run, ""), "2026-11-25T", "", 1), false, false},
		{"less than no time", traceBody("OK", `"execution_duration": "-1s",`, run, ""), false, false},
		{"not JSON", "{", false, false},
		{"other JSON", `{"trace": [1]}`, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			id, s, evaluation, ok := startedTrace([]byte(c.body))
			require.Equal(t, c.want, ok)
			if !ok {
				return
			}
			start := time.Date(2026, 11, 25, 0, 31, 35, 166e6, time.UTC)
			assert.Equal(t, "r1", id)
			assert.Equal(t, span{"1a8ae2feccb7bcc42d756367cb582371", start, start.Add(100*time.Millisecond + cutOff)}, s)
			assert.Equal(t, c.evaluation, evaluation)
		})
	}
}

func packed(t *testing.T, w func(io.Writer) io.WriteCloser, b []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	z := w(&packed)
	_, err := z.Write(b)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return packed.Bytes()
}

// The same trace has the same id in whatever encoding it comes: its second coming is a retry.
func TestExportedSpans(t *testing.T) {
	t.Parallel()
	id, err := hex.DecodeString("1a8ae2feccb7bcc42d756367cb582371")
	require.NoError(t, err)
	child := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	binary, err := proto.Marshal(&otlp.TracesData{ResourceSpans: []*otlp.ResourceSpans{{ScopeSpans: []*otlp.ScopeSpans{{Spans: []*otlp.Span{
		{TraceId: id, SpanId: child, Name: "root", StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + 5},
		{TraceId: id, SpanId: []byte{2, 2, 3, 4, 5, 6, 7, 8}, ParentSpanId: child, StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + 1},
		{TraceId: []byte{1}, SpanId: child, StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18, Status: &otlp.Status{Code: otlp.Status_STATUS_CODE_ERROR}},
		{TraceId: []byte{2}, SpanId: child, StartTimeUnixNano: 2, EndTimeUnixNano: 1},
		{SpanId: child, StartTimeUnixNano: 1, EndTimeUnixNano: 2},
		{TraceId: []byte{3}, SpanId: child, StartTimeUnixNano: 1, EndTimeUnixNano: 1 << 63},
	}}}}}})
	require.NoError(t, err)
	const text = `{"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "x"}}]}, "scopeSpans": [{"spans": [
		{"traceId": "1A8ae2feccb7bcc42d756367cb582371", "spanId": "0102030405060708", "parentSpanId": "", "name": "root", "kind": 1,
		 "startTimeUnixNano": "1000000000000000000", "endTimeUnixNano": 1000000000000000005, "status": {}, "whatever": [1]},
		{"traceId": "1a8ae2feccb7bcc42d756367cb582371", "spanId": "0202030405060708", "parentSpanId": "0102030405060708",
		 "startTimeUnixNano": "1", "endTimeUnixNano": "2"}]}]}]}`
	deflate := func(w io.Writer) io.WriteCloser { z, _ := flate.NewWriter(w, 1); return z }
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	zl := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	bomb := packed(t, gz, make([]byte, maxUnpacked+1))
	for _, c := range []struct {
		name, contentType, encoding string
		body                        []byte
		fails                       bool
	}{
		{"protobuf", "application/x-protobuf", "", binary, false},
		{"gzip", "application/x-protobuf", "gzip", packed(t, gz, binary), false},
		{"deflate", "application/x-protobuf", "deflate", packed(t, zl, binary), false},
		{"deflate without a frame", "application/x-protobuf", "Deflate", packed(t, deflate, binary), false},
		{"JSON", "application/json; charset=utf-8", "", []byte(text), false},
		{"JSON, gzip", "application/json", "gzip", packed(t, gz, []byte(text)), false},
		{"not gzip", "application/x-protobuf", "gzip", binary, true},
		{"cut off", "application/x-protobuf", "gzip", packed(t, gz, binary)[:20], true},
		{"a bomb", "application/x-protobuf", "gzip", bomb, true},
		{"an unknown encoding", "application/x-protobuf", "zstd", binary, true},
		{"an unknown type", "text/plain", "", binary, true},
		{"no type", "", "", binary, true},
		{"not protobuf", "application/x-protobuf", "", []byte("x"), true},
		{"not JSON", "application/json", "", []byte("{"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{"Content-Type": {c.contentType}, "Content-Encoding": {c.encoding}}
			spans, err := exportedSpans(header, c.body)
			if c.fails {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []span{{trace: "1a8ae2feccb7bcc42d756367cb582371", start: time.Unix(1e9, 0), end: time.Unix(1e9, 5)}}, spans)
		})
	}
}

// Whatever a client sends as traces, reading it neither fails nor yields a span that ends before it begins.
func FuzzTraces(f *testing.F) {
	f.Add([]byte(traceBody("OK", `"execution_duration": "0.100s",`, `, "mlflow.sourceRun": "r1"`, "")), "application/json", "")
	f.Add([]byte(`{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "1A8a", "startTimeUnixNano": "1", "endTimeUnixNano": 2}]}]}]}`), "application/json", "")
	f.Add([]byte("\x0a\x10\x12\x0e\x12\x0c\x0a\x01\x01\x39\x01\x00\x00\x00\x00\x00\x00\x00"), "application/x-protobuf", "")
	f.Add([]byte("x"), "application/x-protobuf", "deflate")
	f.Fuzz(func(t *testing.T, body []byte, contentType, encoding string) {
		spans, _ := exportedSpans(http.Header{"Content-Type": {contentType}, "Content-Encoding": {encoding}}, body)
		if _, s, _, ok := startedTrace(body); ok {
			spans = append(spans, s)
		}
		for _, s := range spans {
			assert.False(t, s.end.Before(s.start))
			assert.NotEmpty(t, s.trace)
		}
	})
}
