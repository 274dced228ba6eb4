package proxy

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// Who counted predictions, for the tag emissions.inferences_source. Several are joined by "+".
const (
	sourceTag      = "tag"
	sourceEvaluate = "mlflow.models.evaluate"
	sourceNested   = "nested runs"
	sourceServing  = "serving"
)

// span is a prediction that a trace tells of: its root span.
type span struct {
	trace      string
	start, end time.Time
}

// count is what is known of how many predictions a run made. It is guarded by Proxy.mu.
type count struct {
	before    float64             // in earlier sessions
	beforeBy  string              // who counted those
	evaluated float64             // by mlflow.models.evaluate
	traced    tracedCount         // by traces
	nested    map[string]*float64 // of runs nested in this one that predict, by id; nil where it is not known
	served    float64             // rows that its model predicted in a scoring server since the run ended
	users     float64             // what the user's tag said before those were added to it; 0 for nothing
	word      string              // what the user set emissions.inferences to since then
	uncounted bool                // there were predictions before that nobody counted
	told      []string            // what we wrote as emissions.inferences, if only for an update that the server then refused
}

func newCount() count {
	return count{traced: newTracedCount(), nested: map[string]*float64{}}
}

// inferences returns the number of predictions in the run's inference phase, and who counted them: what the user's tag
// says, else what evaluations, traces and nested runs tell. It is not ok where there are predictions that nobody counted.
func (c *count) inferences(now mlflow.Run) (n float64, source string, ok bool) {
	if n, ok := c.usersCount(now); ok {
		if c.users = n; c.served == 0 {
			return n, sourceTag, true
		}
	}
	if c.users > 0 && c.served > 0 {
		return c.users + c.served, sourceTag + "+" + sourceServing, true
	}
	return c.counted()
}

// counted returns what was counted without the user's word.
func (c *count) counted() (n float64, source string, ok bool) {
	var by []string
	add := func(more float64, source string) {
		n += more
		for _, one := range strings.Split(source, "+") {
			if more > 0 && !slices.Contains(by, one) {
				by = append(by, one)
			}
		}
	}
	add(c.before, cmp.Or(c.beforeBy, sourceEvaluate))
	add(c.evaluated, sourceEvaluate)
	for _, source := range c.traced.sources() {
		add(c.traced.by[source], source)
	}
	complete := !c.uncounted
	for _, more := range c.nested {
		if more == nil {
			complete = false
			continue
		}
		add(*more, sourceNested)
	}
	add(c.served, sourceServing)
	return n, strings.Join(by, "+"), n > 0 && complete
}

// usersCount returns the number that the user has set, which is not one that we wrote.
func (c *count) usersCount(now mlflow.Run) (n float64, ok bool) {
	word := c.word
	if word == "" {
		word = now.Tags[tagInferences]
		if source := now.Tags[tagInferenceSource]; source != "" && source != sourceTag && slices.Contains(c.told, word) {
			return 0, false
		}
	}
	return countOf(word)
}

// countOf reads a number of predictions as users set it.
func countOf(word string) (n float64, ok bool) {
	n, err := strconv.ParseFloat(strings.TrimSpace(word), 64)
	return n, err == nil && n > 0 && !math.IsInf(n, 0)
}

// heard notes the user's count when it comes: figures that are on their way just then may write ours over it.
func (p *Proxy) heard(r *run, tags []mlflow.Tag) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range tags {
		if t.Key != tagInferences {
			continue
		}
		r.word = t.Value
		if _, ok := countOf(t.Value); !ok {
			p.log.Warn("the tag emissions.inferences is no number above 0", "run", r.id)
		}
	}
}

// recall takes over what earlier sessions counted and wrote into the run.
func (c *count) recall(now mlflow.Run) {
	if source := now.Tags[tagInferenceSource]; source != "" && source != sourceTag {
		c.before, _ = strconv.ParseFloat(now.Tags[tagInferences], 64)
		c.beforeBy = source
		c.told = append(c.told, now.Tags[tagInferences])
	}
}

// predicted notes that a run made the predictions of some root spans, which are over, and gives their time its phase.
func (p *Proxy) predicted(id string, caller mlflow.Caller, source string, spans []span) {
	r, over := p.find(id), false
	if r == nil {
		if r, over = p.ended(id); !over {
			return
		}
	}
	if !p.carve(r, source, spans) {
		return
	}
	p.mu.Lock()
	over = over || p.runs[id] != r // it ended just now
	r.behind = r.behind || r.ending > 0 || r.done
	p.mu.Unlock()
	if over {
		p.completeSoon(r, caller)
	}
}

// completeSoon lets what came late for an ended run be written off the client's path: traces come by the hundred, and what
// comes while one waits is written with it.
func (p *Proxy) completeSoon(r *run, caller mlflow.Caller) {
	p.mu.Lock()
	waits := r.completing
	r.completing = true
	p.mu.Unlock()
	if !waits {
		p.background(func() { p.complete(r, caller) })
	}
}

// carve does predicted's work on a run. It reports whether anything has changed.
func (p *Proxy) carve(r *run, source string, spans []span) bool {
	r.switching.Lock()
	defer r.switching.Unlock()
	p.mu.Lock()
	byTag := r.byTag
	var fresh []span
	if byTag != meter.Training {
		fresh = r.traced.add(source, spans, !r.evaluates.IsZero())
	}
	p.mu.Unlock()
	if r.session != nil && byTag == "" {
		for _, s := range fresh {
			r.session.Carve(s.start, s.end, meter.Inference)
		}
	}
	return len(fresh) > 0
}

// infersByName says of a run's name that the run is there to predict: "inference", "inference-resnet50", "batch inference".
// Names in which the word stands elsewhere ("causal-inference") may be of what is trained.
func infersByName(name string) bool {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) })
	if len(words) > 1 && slices.Contains([]string{"batch", "model", "online", "offline"}, words[0]) {
		words = words[1:]
	}
	return len(words) > 0 && (words[0] == "inference" || words[0] == "inferences")
}

// infers makes a run one that predicts, or not any more, and the run that it is nested in with it: unless that one's user
// says what it does.
func (p *Proxy) infers(r *run, does bool) {
	p.mu.Lock()
	around := p.runs[r.parent]
	if around == nil || r.infers == does {
		r.infers = does
		p.mu.Unlock()
		return
	}
	r.infers = does
	byTag := around.byTag
	if _, counted := around.nested[r.id]; does && !counted {
		around.nested[r.id] = nil // until it is over
	}
	p.mu.Unlock()
	if around.session == nil || byTag != "" {
		return
	}
	around.switching.Lock()
	defer around.switching.Unlock()
	around.session.Switch(p.usual(around))
}

// usual is the phase that a run is in when nothing in it says otherwise: inference where it, or a run nested in it, is there
// to predict.
func (p *Proxy) usual(r *run) meter.Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	infers := r.infers
	for _, o := range p.runs {
		infers = infers || o.parent == r.id && o.infers
	}
	if infers {
		return meter.Inference
	}
	return meter.Training
}

// forParent tells the run that one which predicts is nested in how many predictions it made, if that is known. Callers
// hold mu.
func (p *Proxy) forParent(r *run, now *mlflow.Run) {
	around := p.runs[r.parent]
	if around == nil || now == nil {
		return
	}
	if _, predicts := around.nested[r.id]; !predicts {
		return
	}
	if n, _, ok := r.inferences(*now); ok {
		around.nested[r.id] = &n
	}
}
