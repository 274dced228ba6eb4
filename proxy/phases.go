package proxy

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// Where the number of predictions came from, for the tag emissions.inferences_source.
const (
	sourceTag      = "tag"
	sourceEvaluate = "mlflow.models.evaluate"
)

// phases is what a run has said about training and predicting, by its tags or by what mlflow.models.evaluate logs:
// first the dataset, then, when the model has predicted, the number of examples.
//
// The fields are guarded by Proxy.mu. Who tells the session of a phase holds switching as well, and not Proxy.mu, which
// all requests need: the meter may keep us waiting.
type phases struct {
	switching sync.Mutex
	byTag     meter.Phase // what the user switched to last; then nothing is guessed
	candidate int         // number of the segment since the evaluation's dataset was logged; 0 for none
	counted   float64     // predictions that evaluations of this session made
	before    float64     // predictions that evaluations of earlier sessions made
	told      []string    // what we wrote as emissions.inferences, if only for an update that the server then refused
}

// wordsOfInterest stand in the bodies of calls that must be understood; most others need not be.
var wordsOfInterest = [][]byte{[]byte("emission"), []byte("example_count")}

// logged looks at what a run has logged.
func (p *Proxy) logged(x *exchange) {
	if x.body == nil {
		return
	}
	isMetrics := x.kind == kindLogMetric || x.kind == kindLogBatch
	interesting := x.kind == kindLogInputs || slices.ContainsFunc(wordsOfInterest, func(w []byte) bool { return bytes.Contains(x.body, w) })
	joins := isMetrics && !x.ui && x.found != nil
	if r := x.conn.logsTo(x.body); r != nil && !interesting {
		p.mu.Lock()
		r.caller = x.caller
		p.mu.Unlock()
		return
	}
	if !interesting && !joins && p.finished.ItemCount() == 0 {
		return
	}
	m, err := decode(x.body)
	if err != nil {
		return
	}
	id := runID(m)
	r := p.find(id)
	if r == nil {
		if late, ok := p.finished.Get(id); ok && isMetrics {
			p.background(func() { p.complete(late.(*run), x.caller) })
		}
		return
	}
	p.mu.Lock()
	r.caller = x.caller
	p.mu.Unlock()
	if joins {
		p.join(x, r)
	}
	if !interesting {
		return
	}
	switch x.kind {
	case kindSetTag:
		p.tagged(r, mlflow.Tag{Key: field(m, "key"), Value: field(m, "value")})
	case kindLogInputs:
		p.datasets(r, m["datasets"])
	case kindLogMetric:
		v, _ := strconv.ParseFloat(field(m, "value"), 64)
		p.metric(r, field(m, "key"), v)
	case kindLogBatch:
		var tags, values []map[string]json.RawMessage
		_ = json.Unmarshal(m["tags"], &tags)
		_ = json.Unmarshal(m["metrics"], &values)
		for _, t := range tags {
			p.tagged(r, mlflow.Tag{Key: field(t, "key"), Value: field(t, "value")})
		}
		for _, o := range values {
			v, _ := strconv.ParseFloat(field(o, "value"), 64)
			p.metric(r, field(o, "key"), v)
		}
	}
}

// tagged follows the tags that users set.
func (p *Proxy) tagged(r *run, t mlflow.Tag) {
	switch t.Key {
	case tagSkip:
		if isTrue(t.Value) {
			p.drop(r.id)
		}
	case tagPhase:
		if phase := meter.Phase(t.Value); phase == meter.Training || phase == meter.Inference {
			p.setPhase(r, phase)
		}
	}
}

// isTrue reads a tag's value: what Python writes for True is "True".
func isTrue(value string) bool { return strings.EqualFold(value, "true") }

// setPhase switches by the user's word.
func (p *Proxy) setPhase(r *run, phase meter.Phase) {
	r.switching.Lock()
	defer r.switching.Unlock()
	p.mu.Lock()
	r.byTag, r.candidate = phase, 0
	p.mu.Unlock()
	if r.session != nil {
		r.session.Switch(phase)
	}
}

// datasets begins what may turn out to be an evaluation: a dataset was logged that the model is not trained on.
func (p *Proxy) datasets(r *run, raw json.RawMessage) {
	var inputs []struct {
		Tags []mlflow.Tag `json:"tags"`
	}
	if json.Unmarshal(raw, &inputs) != nil {
		return
	}
	for _, input := range inputs {
		training := slices.ContainsFunc(input.Tags, func(t mlflow.Tag) bool {
			return t.Key == "mlflow.data.context" && (t.Value == "train" || t.Value == "training")
		})
		if training {
			continue
		}
		r.switching.Lock()
		defer r.switching.Unlock()
		p.mu.Lock()
		byTag := r.byTag
		p.mu.Unlock()
		if r.session != nil && byTag == "" {
			segment := r.session.Switch(meter.Training) // until the count comes
			p.mu.Lock()
			r.candidate = segment
			p.mu.Unlock()
		}
		return
	}
}

// metric notices the number of predictions, and metrics of the client's own under our names.
func (p *Proxy) metric(r *run, key string, value float64) {
	switch {
	case slices.Contains(ratios, key):
		p.mu.Lock()
		r.clients[key] = true
		p.mu.Unlock()
	case strings.HasSuffix(key, "example_count") && value > 0 && !math.IsInf(value, 0):
		p.evaluated(r, value)
	}
}

// evaluated ends what was an evaluation of so many predictions after all.
func (p *Proxy) evaluated(r *run, count float64) {
	r.switching.Lock()
	defer r.switching.Unlock()
	p.mu.Lock()
	candidate := r.candidate
	if candidate > 0 || r.byTag != "" {
		r.counted += count
	}
	r.candidate = 0
	p.mu.Unlock()
	if candidate > 0 {
		r.session.Relabel(candidate, meter.Inference)
		r.session.Switch(meter.Training)
	}
}

// inferences returns the number of predictions in the run's inference phase: what the user's tag says, else what
// evaluations counted. A tag that we wrote ourselves is not the user's.
func (r *run) inferences(now mlflow.Run) (count float64, source string, ok bool) {
	ours := now.Tags[tagInferenceSource] == sourceEvaluate && slices.Contains(r.told, now.Tags[tagInferences])
	if !ours {
		if n, err := strconv.ParseFloat(now.Tags[tagInferences], 64); err == nil && n > 0 && !math.IsInf(n, 0) {
			return n, sourceTag, true
		}
	}
	count = r.before + r.counted
	return count, sourceEvaluate, count > 0
}

// recallCount takes over what evaluations of earlier sessions counted.
func (r *run) recallCount(now mlflow.Run) {
	if now.Tags[tagInferenceSource] == sourceEvaluate {
		r.before, _ = strconv.ParseFloat(now.Tags[tagInferences], 64)
		r.told = append(r.told, now.Tags[tagInferences])
	}
}
