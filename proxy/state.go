package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// kept is all that must survive the proxy: how the meter stood, the runs that go on or ended of late, and what could not
// be written yet. No credential is in it.
type kept struct {
	Meter   meter.Kept   `json:"meter"`
	Runs    []keptRun    `json:"runs"`
	Letters []keptLetter `json:"letters"`
}

// keptRun is a run as it is kept; its session is the meter's of the same id.
type keptRun struct {
	ID         string               `json:"run_id"`
	Parent     string               `json:"parent,omitempty"`
	Ended      time.Time            `json:"ended"` // up to when it waits for what comes late; zero while it goes on
	Metered    bool                 `json:"metered"`
	Unmeasured string               `json:"unmeasured,omitempty"`
	Began      time.Time            `json:"began"`
	Created    time.Time            `json:"created"`
	Recorded   bool                 `json:"recorded,omitempty"`
	Partial    string               `json:"partial,omitempty"`
	Base       keptTotals           `json:"base"`
	Caller     mlflow.Caller        `json:"caller"` // without its credentials
	Asked      time.Time            `json:"asked"`
	Step       int64                `json:"step"`
	Stamp      int64                `json:"stamp_ms"`
	Unread     bool                 `json:"unread,omitempty"`
	Late       bool                 `json:"late,omitempty"`
	Rests      bool                 `json:"rests,omitempty"`
	WentOn     bool                 `json:"went_on,omitempty"`
	Left       string               `json:"left,omitempty"`
	Wanted     []string             `json:"wanted,omitempty"`
	Ours       map[string][]float64 `json:"ours"`
	Clients    map[string]bool      `json:"clients"`
	Phase      meter.Phase          `json:"phase,omitempty"`
	Evaluates  time.Time            `json:"evaluates"`
	Infers     bool                 `json:"infers,omitempty"`
	Scores     time.Time            `json:"scores"`
	Given      bool                 `json:"given,omitempty"`
	OfModel    string               `json:"of_model,omitempty"`
	Count      keptCount            `json:"count"`
}

// keptTotals is totals.
type keptTotals struct {
	Energy     meter.Energies `json:"energy_j"`
	Duration   time.Duration  `json:"duration_ns"`
	Training   carbon.Mass    `json:"training_g"`
	Inference  carbon.Mass    `json:"inference_g"`
	Low        carbon.Mass    `json:"low_g"`
	High       carbon.Mass    `json:"high_g"`
	Inferred   bool           `json:"inferred"`
	Predicting time.Duration  `json:"predicting_ns"`
	InferLow   carbon.Mass    `json:"inference_low_g"`
	InferHigh  carbon.Mass    `json:"inference_high_g"`
	Untrained  bool           `json:"untrained,omitempty"`
	Supplied   electricity    `json:"electricity"`
	Embodied   carbon.Mass    `json:"embodied_g"`
}

// keptCount is count.
type keptCount struct {
	Before      float64             `json:"before"`
	BeforeBy    string              `json:"before_by,omitempty"`
	Evaluated   float64             `json:"evaluated"`
	Traced      map[string]float64  `json:"traced,omitempty"`
	Seen        []string            `json:"seen,omitempty"` // traces, the latest
	Evaluations []keptSpan          `json:"evaluations,omitempty"`
	Undecided   []keptSpan          `json:"undecided,omitempty"`
	Nested      map[string]*float64 `json:"nested,omitempty"`
	Served      float64             `json:"served,omitempty"`
	Users       float64             `json:"users,omitempty"`
	Word        string              `json:"word,omitempty"`
	Uncounted   bool                `json:"uncounted,omitempty"`
	Told        []string            `json:"told,omitempty"`
}

// keptSpan is span.
type keptSpan struct {
	Trace string    `json:"trace,omitempty"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	By    string    `json:"by,omitempty"` // who told of it
}

// keptLetter is a letter.
type keptLetter struct {
	RunID  string        `json:"run_id"`
	Batch  []byte        `json:"batch,omitempty"`
	Late   bool          `json:"late"`
	Caller mlflow.Caller `json:"caller"`
}

// keepEvery is how often what has changed is kept: after a crash the counters tell what was used since.
const keepEvery = 5 * time.Second

// keepEnded is how many runs are kept that ended of late: the latest, where there are more.
const keepEnded = 1000

// keepPause is the shortest time between two files, and keepDuty the largest part of the time that is spent on them.
const (
	keepPause = 50 * time.Millisecond
	keepDuty  = 0.05
)

// changed says that something is to be kept soon: it is done off the clients' path.
func (p *Proxy) changed() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// keepAll keeps the runs until ctx is done: at once when one begins, ends or changes its phase, and every keepEvery while
// some go on.
func (p *Proxy) keepAll(ctx context.Context, store *Store) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for goesOn := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-p.dirty:
		case <-tick.C:
			if !goesOn {
				continue
			}
		}
		began := time.Now()
		p.guard(func() {
			k := p.collect()
			goesOn = slices.ContainsFunc(k.Runs, func(r keptRun) bool { return r.Metered && r.Ended.IsZero() })
			_ = p.save(store, k) // which says it, and metering goes on
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(keepPause, time.Duration(float64(time.Since(began))/keepDuty))):
		}
	}
}

// Keep writes into the store what must survive the proxy. It is called when the proxy stops, after Drain.
func (p *Proxy) Keep(store *Store) error { return p.save(store, p.collect()) }

func (p *Proxy) save(store *Store, k kept) error {
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keep running sessions: %w", err)
	}
	return store.save(b)
}

// collect returns what is to be kept.
func (p *Proxy) collect() (k kept) {
	finished := p.finished.Items()
	p.mu.Lock()
	all := map[string]*run{}
	for id, l := range p.letters {
		if !p.keeps(l) {
			continue
		}
		all[id] = l.run
		k.Letters = append(k.Letters, keptLetter{RunID: id, Batch: l.batch, Late: l.late, Caller: l.caller})
	}
	ends := map[string]time.Time{}
	for id := range all {
		ends[id] = time.Now()
	}
	for id, item := range finished {
		if r := item.Object.(*run); r.session != nil {
			all[id], ends[id] = r, time.Unix(0, item.Expiration)
		}
	}
	for i, id := range slices.SortedFunc(maps.Keys(ends), func(a, b string) int { return ends[b].Compare(ends[a]) }) {
		if i >= keepEnded && p.letters[id] == nil {
			delete(all, id)
		}
	}
	maps.Copy(all, p.runs)
	var sessions []*meter.Session
	for id, r := range all {
		one := r.keep()
		if p.runs[id] != r {
			one.Ended = ends[id]
		}
		k.Runs = append(k.Runs, one)
		if r.session != nil {
			sessions = append(sessions, r.session)
		}
	}
	p.mu.Unlock()
	slices.SortFunc(k.Runs, func(a, b keptRun) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(k.Letters, func(a, b keptLetter) int { return cmp.Compare(a.RunID, b.RunID) })
	k.Meter = p.cfg.Meter.Keep(sessions...)
	return k
}

// keeps says whether a letter is kept here: what is due to a run that is only served is kept with what was served.
// Callers hold mu.
func (p *Proxy) keeps(l *letter) bool { return l.batch != nil || l.run.session != nil }

// keep returns a run as it is kept, which shares nothing with it. Callers hold Proxy.mu.
func (r *run) keep() keptRun {
	return keptRun{
		ID: r.id, Parent: r.parent, Metered: r.session != nil, Unmeasured: r.unmeasured, Began: r.began, Created: r.created, Recorded: r.recorded, Partial: r.partial, Base: r.base.keep(),
		Caller: r.caller, Asked: r.asked, Step: r.step, Stamp: r.stamp, Unread: r.unread || r.behind || r.owed || r.completing, Late: r.late, Rests: r.rests, WentOn: r.wentOn, Left: r.left, Wanted: slices.Clone(r.wanted),
		Ours: cloneAll(r.ours), Clients: maps.Clone(r.clients), Phase: r.byTag, Evaluates: r.evaluates, Infers: r.infers, Scores: r.scores, Given: r.given, OfModel: r.ofModel,
		Count: r.count.keep(),
	}
}

func (t totals) keep() keptTotals {
	return keptTotals{
		t.energy, t.duration, t.training, t.inference, t.low, t.high, t.inferred, t.predicting, t.inferLow, t.inferHigh, t.untrained, t.electricity, t.embodied,
	}
}

// open makes totals of kept ones.
func (k keptTotals) open() totals {
	return totals{
		energy: k.Energy, duration: k.Duration, training: k.Training, inference: k.Inference, low: k.Low, high: k.High,
		inferred: k.Inferred, predicting: k.Predicting, inferLow: k.InferLow, inferHigh: k.InferHigh, untrained: k.Untrained,
		electricity: k.Supplied, embodied: k.Embodied,
	}
}

// keepSeen is how many traces are kept by their ids: those that are sent again after a restart of the proxy, too.
const keepSeen = 1000

func (c *count) keep() keptCount {
	k := keptCount{
		Before: c.before, BeforeBy: c.beforeBy, Evaluated: c.evaluated, Traced: maps.Clone(c.traced.by), Nested: maps.Clone(c.nested),
		Served: c.served, Users: c.users, Word: c.word, Uncounted: c.uncounted, Told: slices.Clone(c.told),
	}
	for _, s := range c.traced.evaluations {
		k.Evaluations = append(k.Evaluations, keptSpan{s.trace, s.start, s.end, ""})
	}
	for _, u := range c.traced.undecided {
		k.Undecided = append(k.Undecided, keptSpan{u.trace, u.start, u.end, u.source})
	}
	for trace := range c.traced.seen.young {
		if len(k.Seen) == keepSeen {
			break
		}
		k.Seen = append(k.Seen, trace)
	}
	slices.Sort(k.Seen)
	return k
}

// open makes a count of a kept one.
func (k keptCount) open() count {
	c := newCount()
	c.before, c.beforeBy, c.evaluated, c.told = k.Before, k.BeforeBy, k.Evaluated, k.Told
	c.served, c.users, c.word, c.uncounted = k.Served, k.Users, k.Word, k.Uncounted
	maps.Copy(c.traced.by, k.Traced)
	maps.Copy(c.nested, k.Nested)
	for _, trace := range k.Seen {
		c.traced.seen.add(trace)
	}
	for _, s := range k.Evaluations {
		c.traced.evaluations = append(c.traced.evaluations, span{s.Trace, s.Start, s.End})
	}
	for _, s := range k.Undecided {
		c.traced.undecided = append(c.traced.undecided, undecided{span{s.Trace, s.Start, s.End}, s.By})
	}
	return c
}

func cloneAll[V any](m map[string][]V) map[string][]V {
	c := maps.Clone(m)
	for k, v := range c {
		c[k] = slices.Clone(v)
	}
	return c
}

// Restore goes on with what was kept: once, before any request comes. A file that makes no sense is put aside.
func (p *Proxy) Restore(store *Store) {
	b := store.load()
	if b == nil {
		return
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		store.putAside(storeFile, err)
		return
	}
	p.restore(k)
	p.changed()
}

func (p *Proxy) restore(k kept) {
	sessions, err := p.cfg.Meter.Resume(k.Meter)
	ended := ""
	if errors.Is(err, meter.ErrOtherBoot) {
		ended = "the machine was restarted while the run went on"
	}
	runs := map[string]*run{}
	for _, old := range k.Runs {
		if old.ID == "" || runs[old.ID] != nil || old.Metered && sessions[old.ID] == nil || !old.Metered && old.Unmeasured == "" {
			continue
		}
		r := old.open()
		runs[r.id] = r
		if old.Metered {
			r.session = sessions[r.id]
			delete(sessions, r.id)
		}
		if !old.Ended.IsZero() {
			if window := time.Until(old.Ended); window > 0 && r.session != nil {
				r.over.Store(true)
				p.finished.Set(r.id, r, window)
			}
			continue
		}
		p.goOn(r, ended)
	}
	for _, s := range sessions { // of runs that were just about to begin
		s.Close()
	}
	for _, l := range k.Letters {
		r := runs[l.RunID]
		if r == nil {
			continue
		}
		r.unread = l.Late
		p.post(r, l.Batch, l.Caller, nil)
	}
	for id, r := range runs {
		if _, ended := p.ended(id); ended && r.unread && p.letters[id] == nil { // somebody was about to complete it
			p.post(r, nil, r.caller, nil)
		}
	}
}

// goOn meters a run again. ended says why that cannot be, if so: what it used until then is written.
func (p *Proxy) goOn(r *run, ended string) {
	if r.session == nil { // its machine is another
		ended = ""
	}
	p.mu.Lock()
	p.runs[r.id] = r
	p.schedule(r)
	late, rests := r.late, r.rests
	if ended != "" && r.partial == "" {
		r.partial = ended
	}
	p.mu.Unlock()
	switch {
	case r.session == nil:
	case ended != "":
		p.background(func() { p.leave(r, ended, time.Time{}) })
	case !rests:
		r.session.Continue() // an update that was to end it got no answer, or the proxy was stopped
	}
	if late && ended == "" {
		go p.guard(func() { p.watchLate(r, meter.Process{}) })
	}
	p.log.Info("run taken up again", "run", r.id)
}

// open makes a run of a kept one.
func (k keptRun) open() *run {
	r := newRun(k.ID)
	r.parent, r.unmeasured, r.began, r.created, r.recorded, r.partial = k.Parent, k.Unmeasured, k.Began, k.Created, k.Recorded, k.Partial
	r.base = k.Base.open()
	r.caller, r.asked, r.step, r.stamp = k.Caller, k.Asked, k.Step, k.Stamp
	r.unread, r.late, r.rests, r.wentOn, r.left, r.wanted = k.Unread, k.Late, k.Rests, k.WentOn, k.Left, k.Wanted
	if k.Ours != nil {
		r.ours = k.Ours
	}
	if k.Clients != nil {
		r.clients = k.Clients
	}
	r.byTag, r.evaluates, r.infers, r.scores, r.given, r.ofModel = k.Phase, k.Evaluates, k.Infers, k.Scores, k.Given, k.OfModel
	r.count = k.Count.open()
	return r
}
