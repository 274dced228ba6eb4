package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// phases is what a run has said about training and predicting, by its tags or by what mlflow.models.evaluate logs:
// first the dataset, then, when the model has predicted, the number of examples.
//
// The fields are guarded by Proxy.mu. Who tells the session of a phase holds switching as well, and not Proxy.mu, which
// all requests need: the meter may keep us waiting.
type phases struct {
	switching sync.Mutex
	byTag     meter.Phase // what the user switched to last; then nothing is guessed
	evaluates time.Time   // since when what may be an evaluation goes on: its dataset was logged then
	infers    bool        // the run is there to predict, by its name or its tag
	scores    time.Time   // since when mlflow.genai.evaluate predicts and scores
	given     bool        // predictions stand in the data that is evaluated, as it seems
	ofModel   string      // metrics of a logged model that were logged last
	count
}

// wordsOfInterest stand in the bodies of calls that must be understood; most others need not be.
var wordsOfInterest = [][]byte{[]byte("emission"), []byte("example_count"), []byte(tagParent), []byte(runTypeEvaluation), []byte(tagDatasets)}

// logged looks at what a run has logged.
func (p *Proxy) logged(x *exchange) {
	if x.body == nil {
		return
	}
	isMetrics := x.kind == kindLogMetric || x.kind == kindLogBatch
	interesting := x.kind == kindLogInputs || slices.ContainsFunc(wordsOfInterest, func(w []byte) bool { return bytes.Contains(x.body, w) })
	joins := isMetrics && !x.ui && x.found != nil
	if r := x.conn.logsTo(x.body); r != nil && !interesting {
		p.lend(r.id, x.caller)
		return
	}
	if !interesting && !p.knowsRuns() {
		return
	}
	m, err := decode(x.body)
	if err != nil {
		return
	}
	id := runID(m)
	l := entriesOf(x.kind, m)
	p.lend(id, x.caller)
	r := p.find(id)
	if r == nil {
		p.loggedLate(x, id, l)
		return
	}
	switch {
	case joins:
		p.join(x, r)
	case isMetrics && !p.hasProcess(x): // there is nobody to join, and the next ones need not be looked at as closely
		x.conn.joined.Store(r)
	}
	if !interesting {
		return
	}
	if x.kind == kindLogInputs {
		p.datasets(r, m["datasets"])
	}
	p.mu.Lock()
	r.wentOn = r.wentOn || r.lateBy == x.conn
	p.mu.Unlock()
	p.heard(r, l.tags)
	for _, t := range l.tags {
		p.tagged(r, t, x.caller)
	}
	if p.isEcho(r, l) {
		return
	}
	for _, o := range l.metrics {
		p.metric(r, o.Key, o.Value)
	}
}

// isEcho says of metrics of a logged model whether they repeat the ones before: what mlflow.models.evaluate logs of such
// a model, it logs twice (seen with 3.17.2).
func (p *Proxy) isEcho(r *run, l entries) bool {
	if l.ofModel == "" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	echo := l.ofModel == r.ofModel
	r.ofModel = l.ofModel
	if echo { // what comes third is new
		r.ofModel = ""
	}
	return echo
}

// entries are what a call logs.
type entries struct {
	tags    []mlflow.Tag
	metrics []mlflow.Metric
	ofModel string // of metrics that are of a logged model: all of them, as one text
}

// entriesOf reads them, as far as they can be understood.
func entriesOf(k kind, m map[string]json.RawMessage) (e entries) {
	tag := func(m map[string]json.RawMessage) {
		e.tags = append(e.tags, mlflow.Tag{Key: field(m, "key"), Value: field(m, "value")})
	}
	metric := func(m map[string]json.RawMessage) {
		v, _ := strconv.ParseFloat(field(m, "value"), 64)
		e.metrics = append(e.metrics, mlflow.Metric{Key: field(m, "key"), Value: v})
	}
	switch k {
	case kindSetTag:
		tag(m)
	case kindLogMetric:
		metric(m)
	case kindLogBatch:
		var tags, metrics []map[string]json.RawMessage
		_ = json.Unmarshal(m["tags"], &tags)
		_ = json.Unmarshal(m["metrics"], &metrics)
		for _, t := range tags {
			tag(t)
		}
		for _, o := range metrics {
			metric(o)
			if model := field(o, "model_id"); model != "" {
				e.ofModel += fmt.Sprintln(field(o, "key"), field(o, "value"), field(o, "dataset_digest"), model)
			}
		}
	}
	return e
}

// tagged follows the tags that users set.
func (p *Proxy) tagged(r *run, t mlflow.Tag, caller mlflow.Caller) {
	switch t.Key {
	case tagSkip:
		if isTrue(t.Value) {
			p.drop(r.id)
		}
	case tagParent:
		p.nest(r, t.Value)
	case tagDatasets:
		p.mu.Lock()
		r.given = false
		p.mu.Unlock()
	case tagRunType:
		if t.Value == runTypeEvaluation {
			p.mu.Lock()
			r.scores = time.Now()
			p.mu.Unlock()
		}
	case tagPhase:
		phase := phaseOf(t.Value)
		p.mu.Lock()
		late := r.late
		p.mu.Unlock()
		switch {
		case late && phase == meter.Training:
			p.wake(r)
			p.endLate(r, caller)
		case phase == meter.Training || phase == meter.Inference:
			p.setPhase(r, phase)
		default:
			p.log.Warn("the tag emissions.phase is neither training nor inference", "run", r.id)
		}
	}
}

// isTrue reads a tag's value: what Python writes for True is "True".
func isTrue(value string) bool { return strings.EqualFold(value, "true") }

// phaseOf reads the tag's value as people write it: blanks and capitals make no other word of it.
func phaseOf(value string) meter.Phase { return meter.Phase(strings.ToLower(strings.TrimSpace(value))) }

// setPhase switches by the user's word.
func (p *Proxy) setPhase(r *run, phase meter.Phase) {
	r.switching.Lock()
	p.mu.Lock()
	r.byTag, r.evaluates = phase, time.Time{}
	p.mu.Unlock()
	if r.session != nil {
		r.session.Switch(phase)
	}
	r.switching.Unlock()
	if r.session != nil { // which switches the run around it: by their tags two runs may be in each other
		p.infers(r, phase == meter.Inference)
	}
	p.changed()
}

// datasets begins what may turn out to be an evaluation: a dataset was logged that the model is not trained on.
func (p *Proxy) datasets(r *run, raw json.RawMessage) {
	var inputs []struct {
		Tags    []mlflow.Tag `json:"tags"`
		Dataset struct {
			Digest string `json:"digest"`
			Schema string `json:"schema"`
		} `json:"dataset"`
	}
	if json.Unmarshal(raw, &inputs) != nil {
		return
	}
	// log_metrics names the dataset that its metrics are of once for each of them (seen with 3.17.2): nothing begins there.
	if len(inputs) > 1 && inputs[0].Dataset.Digest != "" && inputs[0].Dataset.Digest == inputs[1].Dataset.Digest {
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
		r.given = hasPredictions(input.Dataset.Schema)
		p.mu.Unlock()
		if r.session != nil {
			since := time.Now()
			if byTag == "" {
				since = r.session.Switch(p.usual(r)) // until the count comes
			}
			p.mu.Lock()
			r.evaluates, r.traced.undecided = since, nil
			p.mu.Unlock()
		}
		return
	}
}

// tagDatasets is set by mlflow.models.evaluate once the dataset is logged, where what it evaluates is a logged model.
const tagDatasets = "mlflow.datasets"

// predictionColumn is how people call a column of predictions.
var predictionColumn = regexp.MustCompile(`(?i)^(.*[_ .])?(y_?preds?|preds?|predicted|predictions?|y_?hat)([_ .].*)?$|^(model_?)?outputs?$`)

// hasPredictions says of a dataset whether a column of it looks like predictions: then an evaluation of no logged model is
// taken for one of those, which predicts nothing. MLflow's calls are the same for it as for the evaluation of a function (seen
// with 2.9.2 and 3.17.2), and so the name is all that there is to tell them apart.
func hasPredictions(schema string) bool {
	var of struct {
		Columns []struct {
			Name string `json:"name"`
		} `json:"mlflow_colspec"`
	}
	if json.Unmarshal([]byte(schema), &of) != nil {
		return false
	}
	for _, c := range of.Columns {
		if predictionColumn.MatchString(c.Name) {
			return true
		}
	}
	return false
}

// metric notices the number of predictions, and metrics of the client's own under our names.
func (p *Proxy) metric(r *run, key string, value float64) {
	switch {
	case slices.Contains(ratios, key):
		p.mu.Lock()
		r.clients[key] = true
		p.mu.Unlock()
	case strings.HasSuffix(key, "example_count") && value > 0 && !math.IsInf(value, 0):
		p.isEvaluated(r, value)
	}
}

// isEvaluated ends what was an evaluation of so many predictions after all.
func (p *Proxy) isEvaluated(r *run, count float64) {
	r.switching.Lock()
	defer r.switching.Unlock()
	p.mu.Lock()
	since, byTag := r.evaluates, r.byTag
	r.evaluates = time.Time{}
	// What is predicted while the user says that the run trains is a part of that.
	counts := !r.given && (byTag == meter.Inference || byTag == "" && !since.IsZero())
	if counts {
		r.evaluated += count
	}
	p.mu.Unlock()
	if !counts || since.IsZero() {
		return
	}
	until := time.Now()
	if byTag == "" {
		until = r.session.Switch(p.usual(r))
		r.session.Carve(since, until, meter.Inference)
	}
	p.mu.Lock()
	r.traced.evaluated(span{start: since, end: until})
	p.mu.Unlock()
	p.changed()
}
