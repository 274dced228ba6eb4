package proxy

import (
	"encoding/json"
	"strings"
	"time"
)

// What a trace tells about itself, as MLflow's client writes it.
const (
	metadataRun   = "mlflow.sourceRun"          // the run in which it was made
	tagEvaluation = "mlflow.eval.requestId"     // an item of mlflow.genai.evaluate, not a scorer's own work
	tagScorer     = "mlflow.trace.sourceScorer" // the scorer that made it
	tagTraceName  = "mlflow.traceName"          // its root span's name

	// nothingPredicted is the name of the span that mlflow.genai.evaluate makes up for an item of which the data has the
	// output already.
	nothingPredicted = "root_span"
)

// cutOff is what MLflow's client leaves out of a time on average: it writes whole milliseconds.
const cutOff = time.Millisecond / 2

// startedTrace reads the call by which MLflow's client writes a trace, once it is over: the run in which it was made, and
// its root span. evaluation says that it is an item of mlflow.genai.evaluate. ok is false where it makes no prediction: it
// failed, goes on, is a scorer's, or stands for a prediction that was made before.
func startedTrace(body []byte) (run string, root span, evaluation, ok bool) {
	m, err := decode(body)
	if err != nil {
		return "", span{}, false, false
	}
	info := member(member(m, "trace"), "trace_info", "traceInfo")
	var metadata, tags map[string]string
	_ = json.Unmarshal(rawMember(info, "trace_metadata", "traceMetadata"), &metadata)
	_ = json.Unmarshal(rawMember(info, "tags"), &tags)
	switch field(info, "state") {
	case "OK", "1", "STATE_UNSPECIFIED", "0", "":
	default:
		return "", span{}, false, false
	}
	start, err := time.Parse(time.RFC3339Nano, field(info, "request_time", "requestTime"))
	if err != nil {
		return "", span{}, false, false
	}
	took, err := time.ParseDuration(field(info, "execution_duration", "executionDuration"))
	if err != nil || took < 0 {
		return "", span{}, false, false
	}
	run = metadata[metadataRun]
	root = span{trace: strings.TrimPrefix(field(info, "trace_id", "traceId"), "tr-"), start: start, end: start.Add(took + cutOff)}
	evaluation = tags[tagEvaluation] != ""
	madeUp := evaluation && tags[tagTraceName] == nothingPredicted
	return run, root, evaluation, run != "" && root.trace != "" && tags[tagScorer] == "" && !madeUp
}

// rawMember returns the first of the named members that is there. Protobuf's JSON has two names for each.
func rawMember(m map[string]json.RawMessage, names ...string) json.RawMessage {
	for _, name := range names {
		if v, ok := m[name]; ok {
			return v
		}
	}
	return nil
}

// member returns the first of the named members that is there, as an object.
func member(m map[string]json.RawMessage, names ...string) map[string]json.RawMessage {
	var o map[string]json.RawMessage
	_ = json.Unmarshal(rawMember(m, names...), &o)
	return o
}
