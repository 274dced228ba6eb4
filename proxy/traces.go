package proxy

import "slices"

// runHeader names the run that spans belong to, where they come by OpenTelemetry's protocol.
const runHeader = "X-Mlflow-Run-Id"

// tagRunType is set by mlflow.genai.evaluate when it begins.
const (
	tagRunType        = "mlflow.runType"
	runTypeEvaluation = "genai_evaluate"
)

// Who told of predictions by traces.
const (
	sourceTraces = "traces"
	sourceGenAI  = "mlflow.genai.evaluate"
)

// traced looks at a trace, or at spans, that the server has taken: each root span is a prediction of the run in which it was
// made, and its time is the run's inference phase. Traces come late: MLflow's client writes them in the background, even
// after the run's end.
func (p *Proxy) traced(x *exchange) {
	if x.body == nil || x.ui || x.foreign {
		return
	}
	run, source, spans := x.header.Get(runHeader), sourceTraces, []span(nil)
	if x.kind == kindTrace {
		id, root, evaluation, ok := startedTrace(x.body)
		if !ok {
			return
		}
		run, spans = id, []span{root}
		if evaluation {
			source = sourceGenAI
		}
	} else {
		var err error
		if spans, err = exportedSpans(x.header, x.body); err != nil {
			p.log.Debug("spans cannot be read; their predictions are not counted", "error", err)
			return
		}
	}
	if spans = p.ofModel(run, source, spans); len(spans) > 0 {
		p.predicted(run, x.caller, source, spans)
	}
}

// ofModel leaves out what is not the model's work in the time that is metered. While mlflow.genai.evaluate goes on, it marks
// the predictions that it asks for; what scorers and judges do has no mark.
func (p *Proxy) ofModel(id, source string, spans []span) []span {
	r := p.find(id)
	if r == nil {
		r, _ = p.ended(id)
	}
	if r == nil || r.session == nil {
		return nil
	}
	spans = slices.DeleteFunc(spans, func(s span) bool { return !s.end.After(r.began) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if source == sourceTraces {
		return slices.DeleteFunc(spans, func(s span) bool { return !r.scores.IsZero() && !s.start.Before(r.scores) })
	}
	for _, s := range spans {
		if r.scores.IsZero() || s.start.Before(r.scores) {
			r.scores = s.start
		}
	}
	return spans
}
