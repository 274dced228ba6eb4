package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// meteredHeader marks what one of our proxies meters: a central one behind it leaves such a run alone.
const meteredHeader = "X-Mlflow-Emissions-Metered"

// run is an MLflow run that began through this proxy and has not ended.
type run struct {
	id     string
	parent string      // the run that it is nested in
	began  time.Time   // when we began to meter it
	over   atomic.Bool // it ended, or was dropped

	// write is held while figures are worked out and written, so that a run has one writer at a time.
	write slotLock

	// The rest is guarded by Proxy.mu, the session by itself.
	session    *meter.Session // nil where the run cannot be measured
	unmeasured string         // why not
	created    time.Time      // when it was, if that was seen
	recorded   bool           // it was over before that; see recorded.go
	partial    string         // why not all of it was measured
	base       totals         // of earlier sessions of the same run
	caller     mlflow.Caller  // the latest request's credentials, for figures that are written in between
	ending     int            // final updates that are on their way to the server
	done       bool           // the figures for these updates were written, or kept for a later try
	pending    []byte         // the batch that could not be written
	failed     error          // why not
	final      meter.Record   // of a run that is only served: it has no session here
	unread     bool           // without the run's own metrics, which could not be read in time
	behind     bool           // predictions were told of while the figures were worked out, which may be without them
	completing bool           // what came after its end waits to be written
	nextLog    time.Time      // when emissions_g is to be logged next
	asked      time.Time      // of the latest request about the run
	late       bool           // it had ended, and what it predicts since then is metered
	lateBy     *connection    // on which it was said that it predicts
	wentOn     bool           // more came on that since, see watchLate
	rests      bool           // what it uses now counts only if it goes on, see watchLate
	owed       bool           // what came after its end could not be written yet
	step       int64          // the largest that was written
	stamp      int64          // the latest time that was written, ms since 1970
	left       string         // why it was ended though its client did not end it; empty where that did
	wanted     []string       // keys that the user names as accuracy
	cancelLive context.CancelFunc
	ours       map[string][]float64 // what we wrote under the names of ratios, since what is known to be there
	clients    map[string]bool      // names of ratios under which the client logs metrics of its own
	phases
}

func newRun(id string) *run {
	return &run{id: id, began: time.Now(), write: newSlotLock(), asked: time.Now(), ours: map[string][]float64{}, clients: map[string]bool{}, phases: phases{count: newCount()}}
}

// another makes a run that may have ended before: figures of that may still be on their way, and a run has one writer.
func (p *Proxy) another(id string) *run {
	r := newRun(id)
	if last := p.latest(id); last != nil {
		r.write = last.write
	}
	return r
}

// schedule sets when a new run's emissions_g is logged for the first time.
func (p *Proxy) schedule(r *run) { r.nextLog = time.Now().Add(p.cfg.LogInterval) }

// before sees a watched request before it is forwarded.
func (p *Proxy) before(x *exchange, r *http.Request) {
	x.foreign = r.Header.Get(meteredHeader) != ""
	if x.kind == kindCreate || x.kind == kindUpdate {
		onlyReadable(r.Header)
	}
	switch x.kind {
	case kindCreate, kindRestore:
		r.Header.Set(meteredHeader, p.cfg.Host)
		p.lookUp(x)
	case kindUpdate:
		if x.body == nil {
			return
		}
		makeReplayable(r, x.body)
		m, err := decode(x.body)
		if err != nil {
			return
		}
		switch status, _ := finalStatus(m); status {
		case "":
		case "RUNNING":
			x.resumes = true
			r.Header.Set(meteredHeader, p.cfg.Host)
			p.lookUp(x)
		default:
			x.ended = endTime(m)
			p.step(x, func() { p.end(x, runID(m)) })
		}
	case kindLogMetric, kindLogBatch:
		if !x.ui && x.body != nil && p.knowsRuns() && x.conn.logsTo(x.body) == nil {
			p.lookUp(x)
		}
	}
}

// onlyReadable leaves of the encodings that a client takes only the one that we can read, too: its answer is the same.
func onlyReadable(h http.Header) {
	accepted := h.Get("Accept-Encoding")
	switch {
	case accepted == "":
	case strings.Contains(accepted, "gzip"):
		h.Set("Accept-Encoding", "gzip")
	default:
		h.Set("Accept-Encoding", "identity")
	}
}

// knowsRuns says whether there is any run that a request could be about.
func (p *Proxy) knowsRuns() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.runs)+len(p.letters) > 0 || p.finished.ItemCount() > 0
}

// hasProcess says whether a client's process can be one of a run's.
func (p *Proxy) hasProcess(x *exchange) bool {
	return p.isLocal(x.conn.remote.Addr()) && p.cfg.Scope == meter.ScopeProcess
}

// lookUp finds the client's process while the upstream is answering. It must be known before the answer is passed on:
// many clients close the connection, or end, as soon as they have it.
func (p *Proxy) lookUp(x *exchange) {
	if !p.hasProcess(x) {
		return
	}
	x.found = make(chan struct{})
	go func() {
		defer close(x.found)
		p.guard(func() { _, _ = x.conn.peer(p.cfg.Meter) })
	}()
}

// peer waits for the look-up.
func (p *Proxy) peer(x *exchange) (meter.Process, error) {
	if x.found != nil {
		<-x.found
	}
	return x.conn.peer(p.cfg.Meter)
}

// after sees the answer to a watched request before the client does.
func (p *Proxy) after(x *exchange, res *http.Response) {
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return
	}
	switch x.kind {
	case kindCreate, kindUpdate:
		body, ok := readAnswer(res)
		switch {
		case !ok:
		case x.kind == kindCreate:
			p.step(x, func() { p.created(x, body) })
		default:
			p.step(x, func() { p.updated(x, body) })
		}
	case kindDelete:
		p.step(x, func() { p.drop(x.runID()) })
	case kindRestore:
		p.step(x, func() {
			if id := x.runID(); id != "" {
				p.resume(x, id)
			}
		})
	case kindTrace, kindSpans:
		p.step(x, func() { p.traced(x) })
	default:
		p.step(x, func() { p.logged(x) })
	}
}

// over is called once a watched request is done, whatever came of it.
func (p *Proxy) over(x *exchange) {
	if x.kind != kindUpdate && x.found == nil {
		return
	}
	p.step(x, func() {
		if x.found != nil {
			<-x.found // the goroutine does not outlive its request
		}
		if x.ending != nil {
			p.settle(x, "")
		}
	})
}

// runID returns the run that a request is about, by whichever name MLflow's server accepts.
func runID(m map[string]json.RawMessage) string {
	return field(m, "run_id", "runId", "run_uuid", "runUuid")
}

func (x *exchange) runID() string {
	m, err := decode(x.body)
	if err != nil {
		return ""
	}
	return runID(m)
}

// runInfo is the part of an answer that says which run it is and how it stands.
type runInfo struct {
	RunID   string `json:"run_id"`
	RunUUID string `json:"run_uuid"`
	Name    string `json:"run_name"`
	Status  string `json:"status"`
}

func (i runInfo) id() string {
	if i.RunID != "" {
		return i.RunID
	}
	return i.RunUUID
}

// isFinal says whether a run with this status is over.
func isFinal(status string) bool {
	return status == "FINISHED" || status == "FAILED" || status == "KILLED"
}

// created begins to meter a run. All that is needed stands in the answer, so that the request need not be understood.
func (p *Proxy) created(x *exchange, body []byte) {
	var answer struct {
		Run struct {
			Info runInfo `json:"info"`
			Data struct {
				Tags []mlflow.Tag `json:"tags"`
			} `json:"data"`
		} `json:"run"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Run.Info.id() == "" || isFinal(answer.Run.Info.Status) {
		return
	}
	tags := map[string]string{tagName: answer.Run.Info.Name}
	for _, t := range answer.Run.Data.Tags {
		tags[t.Key] = t.Value
	}
	now := time.Now()
	if r := p.begin(x, answer.Run.Info.id(), tags, totals{}); r != nil {
		p.mu.Lock()
		r.created = now
		p.mu.Unlock()
	}
}

// begin starts a run's session, or notes why it cannot be measured.
func (p *Proxy) begin(x *exchange, id string, tags map[string]string, base totals) *run {
	if x.foreign || isTrue(tags[tagSkip]) {
		return nil
	}
	r := p.another(id)
	r.parent, r.base, r.caller = tags[tagParent], base, x.caller
	r.keepClients(tags)
	p.schedule(r)
	r.session, r.unmeasured = p.open(x, id, r.parent)
	if r.session == nil && base.duration > 0 {
		r.unmeasured = statusPartial + sinceResumed + r.unmeasured
	}
	p.mu.Lock()
	if known := p.runs[id]; known != nil { // two resumes at once: the first one meters
		p.mu.Unlock()
		if r.session != nil {
			r.session.Close()
		}
		return known
	}
	p.runs[id] = r
	p.mu.Unlock()
	p.finished.Delete(id)
	p.changed()
	if r.session != nil {
		p.supersede(r)
		p.predicts(r, tags, base)
	}
	if r.session == nil {
		p.log.Warn("run cannot be measured", "run", id, "reason", r.unmeasured)
		p.lacks(r)
	} else {
		p.log.Info("run began", "run", id, "scope", r.session.Scope())
	}
	return r
}

// predicts makes a run that is there to predict one, from its first moment on: it was begun with the tag, or its name
// says so.
func (p *Proxy) predicts(r *run, tags map[string]string, base totals) {
	switch {
	case phaseOf(tags[tagPhase]) == meter.Inference:
		p.setPhase(r, meter.Inference)
	case tags[tagPhase] == "" && base.duration == 0 && infersByName(tags[tagName]):
		r.session.Switch(meter.Inference)
		p.infers(r, true)
	default:
		return
	}
	if base.duration > 0 {
		return
	}
	record := r.session.Record()
	began, now := record.Segments[0].Start, time.Now()
	r.session.Carve(began, now, meter.Inference)
	p.mu.Lock()
	around := p.runs[r.parent]
	carve := around != nil && around.session != nil && around.byTag == ""
	p.mu.Unlock()
	if carve {
		around.session.Carve(began, now, meter.Inference)
	}
}

// open begins a session for the client of a request, by the contract's order: its process tree, else the machine if
// that is all the run's to share, else nothing.
func (p *Proxy) open(x *exchange, id, parent string) (*meter.Session, string) {
	remote := x.conn.remote.Addr()
	if !p.isLocal(remote) {
		return nil, "unmeasured: the client " + remote.Unmap().String() + " is on another machine; run a proxy there, or add its address to --local-clients if it is this one"
	}
	if p.cfg.Scope == meter.ScopeProcess {
		process, err := p.peer(x)
		if err == nil {
			s, err := p.cfg.Meter.Begin(id, parent, meter.ScopeProcess, process)
			if err == nil {
				return s, ""
			}
		}
		if p.cfg.InPod {
			return nil, "unmeasured: the client's process cannot be seen from this pod's container; set shareProcessNamespace: true in the pod's spec"
		}
		p.log.Warn("the client's process cannot be found; its run is given the machine's energy", "run", id, "error", err)
	}
	s, err := p.cfg.Meter.Begin(id, parent, meter.ScopeMachine, meter.Process{})
	if err != nil {
		return nil, "unmeasured: " + err.Error()
	}
	return s, ""
}

// resume begins a new session of a run that had ended; its totals go on from what it had.
func (p *Proxy) resume(x *exchange, id string) {
	if r := p.find(id); r != nil { // for the server, too, it never ended: another process goes on with it
		p.mu.Lock()
		r.late = false // or it had, and what it predicted since is part of what goes on
		p.mu.Unlock()
		if x.found != nil && !x.ui {
			p.join(x, r)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	now, err := p.client.Run(ctx, x.caller, id)
	if err != nil {
		p.log.Warn("cannot read what the resumed run had; it counts from here", "run", id, "error", err)
	}
	old, _ := p.ended(id)
	last := p.latest(id)
	if err == nil && now.Status != "RUNNING" {
		if old != nil && p.isLeft(old) { // somebody ended it past us
			p.endedAfterAll(old, x)
		}
		return
	}
	base := earlier(now)
	r := p.begin(x, id, now.Tags, base)
	if r == nil {
		return
	}
	if old != nil { // known better than by what stands in the run
		p.follow(r, old)
		p.takenUp(r, old)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		r.partial = "the run was resumed and what it had before could not be read"
	}
	if x.kind == kindRestore && r.partial == "" {
		r.partial = beforeResumed + "it was deleted while it went on"
	}
	if last != nil { // which is not in the run yet
		r.inherit(last.whyNot())
	}
	r.recall(now)
}

// join makes the client's process one of a run's.
func (p *Proxy) join(x *exchange, r *run) {
	if r.session == nil {
		return
	}
	if process, err := p.peer(x); err == nil {
		r.session.Join(process)
		x.conn.joined.Store(r)
	}
}

func (p *Proxy) find(id string) *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs[id]
}

// end writes a run's figures before the update that ends it is passed on.
func (p *Proxy) end(x *exchange, id string) {
	r := p.find(id)
	if r == nil || x.foreign {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	x.ending = r
	p.mu.Lock()
	r.ending++
	r.noticeEnd(x.ended)
	if r.cancelLive != nil {
		r.cancelLive()
	}
	p.mu.Unlock()
	p.wake(r)
	if r.write.lock(ctx) != nil {
		return // close writes them
	}
	defer r.write.unlock()
	p.mu.Lock()
	needless := r.done || p.runs[id] != r // another update of the same run has seen to it
	p.mu.Unlock()
	if !needless {
		p.writeFigures(ctx, r, x.caller)
	}
}

// updated looks at how the run stands after an update: the server's answer decides.
func (p *Proxy) updated(x *exchange, body []byte) {
	var answer struct {
		Info runInfo `json:"run_info"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Info.id() == "" {
		return
	}
	id, status := answer.Info.id(), answer.Info.Status
	p.lend(id, x.caller)
	switch {
	case x.ending != nil && x.ending.id == id:
		p.settle(x, status)
	case isFinal(status):
		// A form of the update that we did not recognise, or did not read: complete the run now.
		if r := p.find(id); r != nil && !x.foreign {
			p.end(x, id)
			p.settle(x, status)
		} else if old, ok := p.ended(id); ok && p.isLeft(old) {
			p.endedAfterAll(old, x)
		}
	case status == "RUNNING" && x.resumes:
		p.resume(x, id)
	}
}

// settle ends what a recognised final update began. status is what the server answered; empty if there was no answer.
func (p *Proxy) settle(x *exchange, status string) {
	r := x.ending
	x.ending = nil
	p.mu.Lock()
	r.ending--
	last, open := r.ending == 0, p.runs[r.id] == r
	final, rests := isFinal(status), r.rests
	if final {
		r.caller, r.left = x.caller, ""
	} else if last {
		r.done, r.pending = false, nil
	}
	p.mu.Unlock()
	switch {
	case !open:
	case final:
		p.close(r, status)
	case last && r.session != nil && !rests:
		r.session.Continue()
	}
}

// close ends a run's session. The first of several updates that end the run closes it.
func (p *Proxy) close(r *run, status string) {
	p.mu.Lock()
	open := p.runs[r.id] == r
	if open {
		delete(p.runs, r.id)
		r.over.Store(true)
	}
	batch, failed, caller, done, unread, measured := r.pending, r.failed, r.caller, r.done, r.unread || r.behind, r.whyNot() == ""
	if open && measured { // what comes late completes its figures
		p.finished.Set(r.id, r, p.cfg.LateWindow)
	}
	p.mu.Unlock()
	if !open {
		return
	}
	if !done { // another writer held on for too long
		if r.session != nil {
			r.session.Stop()
		}
		p.background(func() {
			ctx, cancel := context.WithTimeout(context.Background(), orphanTimeout)
			defer cancel()
			if err := r.write.lock(ctx); err != nil {
				var status []byte
				if !measured { // of this run there is no more to say
					status, _ = p.batch(ctx, r, caller)
				}
				p.post(r, status, caller, err)
				return
			}
			defer r.write.unlock()
			p.writeFigures(ctx, r, caller)
			p.mu.Lock()
			batch, failed := r.pending, r.failed
			p.mu.Unlock()
			if batch != nil {
				p.post(r, batch, caller, failed)
			}
		})
	}
	if r.session != nil {
		r.session.Close()
	}
	if batch != nil {
		p.post(r, batch, caller, failed)
	}
	if r.session != nil {
		p.infers(r, false)
	}
	if measured && unread && batch == nil {
		p.background(func() { p.complete(r, caller) })
	}
	p.changed()
	p.log.Info("run ended", "run", r.id, "status", status)
}

// drop forgets a deleted run: nothing is written into it.
func (p *Proxy) drop(id string) {
	p.mu.Lock()
	r := p.runs[id]
	delete(p.runs, id)
	p.unpost(id)
	p.mu.Unlock()
	p.finished.Delete(id)
	p.changed()
	if r == nil {
		return
	}
	r.over.Store(true)
	if r.session != nil {
		r.session.Close()
		p.infers(r, false)
	}
}
