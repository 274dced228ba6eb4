package proxy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
)

// stateFile is where runs are kept that go on while the proxy is restarted, under the state folder.
const stateFile = "runs.json"

// keptRun is a run as it is kept: what it used so far, and whose process goes on. No credential is in it.
type keptRun struct {
	ID        string               `json:"run_id"`
	Parent    string               `json:"parent"`
	Phase     meter.Phase          `json:"phase"`
	Scope     meter.Scope          `json:"scope"`
	Process   meter.Process        `json:"process"`
	Energy    meter.Energies       `json:"energy_j"`
	Duration  time.Duration        `json:"duration_ns"`
	Training  carbon.Mass          `json:"training_g"`
	Inference carbon.Mass          `json:"inference_g"`
	Low       carbon.Mass          `json:"low_g"`
	High      carbon.Mass          `json:"high_g"`
	Inferred  bool                 `json:"inferred"`
	Supplied  electricity          `json:"electricity"`
	Embodied  carbon.Mass          `json:"embodied_g"`
	Count     float64              `json:"inferences"`
	CountBy   string               `json:"inferences_by"`
	Ours      map[string][]float64 `json:"written"`
	Clients   map[string]bool      `json:"clients"`
}

// kept is the file.
type kept struct {
	Stopped time.Time `json:"stopped"`
	Runs    []keptRun `json:"runs"`
}

// Keep writes the runs that go on into the state folder. It is called when the proxy stops, after Drain.
func (p *Proxy) Keep(dir string) error {
	p.mu.Lock()
	k := kept{Stopped: time.Now()}
	for _, r := range p.runs {
		if r.session == nil {
			continue
		}
		t := r.base.plus(p.reckon(r.final))
		count, by, _ := r.counted()
		k.Runs = append(k.Runs, keptRun{
			ID: r.id, Parent: r.parent, Phase: r.byTag, Scope: r.session.Scope(), Process: r.session.Opener(), Energy: t.energy, Duration: t.duration, Training: t.training,
			Inference: t.inference, Low: t.low, High: t.high, Inferred: t.inferred, Supplied: t.electricity, Embodied: t.embodied, Count: count, CountBy: by, Ours: maps.Clone(r.ours), Clients: maps.Clone(r.clients),
		})
	}
	slices.SortFunc(k.Runs, func(a, b keptRun) int { return cmp.Compare(p.depth(a.ID), p.depth(b.ID)) })
	p.mu.Unlock()
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keep running sessions: %w", err)
	}
	// By a new name first: a file is there whole or not at all.
	path := filepath.Join(dir, stateFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("keep running sessions: %w", err)
	}
	return os.Rename(path+".new", path)
}

// depth tells how deeply a run is nested: parents are taken up before what is inside them. Callers hold mu.
func (p *Proxy) depth(id string) int {
	n := 0
	for r := p.runs[id]; r != nil && n < len(p.runs); r = p.runs[r.parent] {
		n++
	}
	return n
}

// Restore takes up the runs that were kept and whose process still is there. What they used while the proxy was down is
// not known, and their status says so. A file that cannot be read is put aside.
func (p *Proxy) Restore(dir string) error {
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read kept sessions: %w", err)
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		p.log.Warn("kept sessions cannot be read; the file is put aside", "file", path, "error", err)
		return os.Rename(path, path+".damaged")
	}
	for _, old := range k.Runs {
		s, err := p.cfg.Meter.Begin(old.ID, old.Parent, old.Scope, old.Process)
		if err != nil {
			p.log.Info("a run's process ended while the proxy was down", "run", old.ID)
			continue
		}
		r := newRun(old.ID)
		r.session, r.parent = s, old.Parent
		if old.Phase != "" {
			p.setPhase(r, old.Phase)
		}
		r.base = totals{energy: old.Energy, duration: old.Duration, training: old.Training, inference: old.Inference, low: old.Low, high: old.High, inferred: old.Inferred,
			electricity: old.Supplied, embodied: old.Embodied}
		r.before, r.beforeBy, r.told = old.Count, old.CountBy, []string{formatCount(old.Count)}
		r.partial = fmt.Sprintf("the proxy was down for %.0f s", time.Since(k.Stopped).Seconds())
		for key, v := range old.Ours {
			r.ours[key] = v
		}
		for key, v := range old.Clients {
			r.clients[key] = v
		}
		p.schedule(r)
		p.mu.Lock()
		p.runs[r.id] = r
		p.mu.Unlock()
		p.log.Info("run taken up again", "run", r.id)
	}
	return os.Remove(path)
}
