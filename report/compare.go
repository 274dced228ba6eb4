package report

import (
	"cmp"
	"context"
	"math"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"mlflow-emissions-proxy/mlflow"
)

// Comparison is all that a report shows.
type Comparison struct {
	Experiments []mlflow.Experiment // that were asked for
	Runs        []Run               // all that were found, in MLflow's order or as sorted
	Size        string              // what a bubble's area is
	Sizes       []string            // what it may be
	Next        string              // MLflow's token for the runs after these; empty if these are all
	chosen      map[string]bool     // ids of runs to compare; empty: all
}

// Chosen returns the runs to compare: those that were picked, or all.
func (c Comparison) Chosen() []Run {
	if len(c.chosen) == 0 {
		return c.Runs
	}
	var chosen []Run
	for _, r := range c.Runs {
		if c.chosen[r.ID] {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// Source is where runs are read, and as whom.
type Source struct {
	Client *mlflow.Client
	Caller mlflow.Caller
	// Accuracy returns a run's accuracy as the proxy took it, or would.
	Accuracy func(mlflow.Run) (percent float64, key string, ok bool)
	// RunURL makes the address of a run's page in MLflow.
	RunURL func(experiment, run string) string
}

// Query says what to compare.
type Query struct {
	Experiments []string // ids
	Filter      string   // MLflow's
	Runs        []string // ids of those to pick; empty: all
	Size        string   // what a bubble's area is; empty: the best guess
	Sort        string   // key of a column, after "-" for the largest first; empty: MLflow's order, the latest first
	Limit       int      // at most so many runs; 0: all
	PageToken   string
	RunningOnly bool
}

// callsAtOnce is how many calls one comparison makes of MLflow at a time, however many experiments are asked for.
const callsAtOnce = 4

// Load reads what a query asks for. It is an *mlflow.APIError if the server refuses.
func Load(ctx context.Context, s Source, q Query) (Comparison, error) {
	c := Comparison{chosen: map[string]bool{}}
	for _, id := range q.Runs {
		c.chosen[id] = true
	}
	filter := q.Filter
	if q.RunningOnly {
		filter = strings.TrimPrefix(strings.TrimSpace(filter)+" and attributes.status = 'RUNNING'", " and ")
	}
	var found []mlflow.Run
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(callsAtOnce)
	group.Go(func() (err error) {
		found, c.Next, err = s.Client.SearchRuns(ctx, s.Caller, mlflow.RunQuery{
			ExperimentIDs: q.Experiments, Filter: filter, Limit: q.Limit, PageToken: q.PageToken,
		})
		return err
	})
	c.Experiments = make([]mlflow.Experiment, len(q.Experiments))
	for i, id := range q.Experiments {
		group.Go(func() (err error) {
			c.Experiments[i], err = s.Client.Experiment(ctx, s.Caller, id)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return c, err
	}
	c.fill(s, found, q)
	return c, nil
}

// fill makes the comparison of what was read.
func (c *Comparison) fill(s Source, found []mlflow.Run, q Query) {
	names := map[string]string{}
	for _, e := range c.Experiments {
		names[e.ID] = e.Name
	}
	var guess string
	c.Sizes, guess = sizes(found)
	c.Size = cmp.Or(q.Size, guess)
	for _, f := range found {
		r := runOf(f)
		r.Experiment, r.Size, r.URL = names[r.ExperimentID], sizeOf(f, c.Size), s.RunURL(r.ExperimentID, r.ID)
		if v, key, ok := s.Accuracy(f); ok {
			r.Accuracy, r.AccuracyKey = Value(v), key
		}
		c.Runs = append(c.Runs, r)
	}
	for id := range c.chosen { // what the filter left out is not picked
		if !slices.ContainsFunc(c.Runs, func(r Run) bool { return r.ID == id }) {
			delete(c.chosen, id)
		}
	}
	c.nest()
	c.front()
	c.sort(q.Sort)
}

// nest finds the runs whose energy is in that of a run that is compared, too: a nested run's is its parent's, as long as
// one proxy meters both and the parent has not ended.
func (c *Comparison) nest() {
	byID := map[string]*Run{}
	for i := range c.Runs {
		if r := &c.Runs[i]; len(c.chosen) == 0 || c.chosen[r.ID] {
			byID[r.ID] = r
		}
	}
	for _, r := range byID {
		seen := map[string]bool{r.ID: true} // tags are the users': they may name one another
		for below, p := r, byID[r.Parent]; p != nil && !seen[p.ID]; below, p = p, byID[p.Parent] {
			seen[p.ID] = true
			if p.Host != below.Host || p.End != nil && below.Start != nil && !below.Start.Before(*p.End) {
				break
			}
			if p.Emissions.Known() {
				r.Inside = true
				break
			}
		}
	}
}

// front marks the runs that no other beats: none that is compared is at least as accurate for less. What is partial or
// goes on emitted more than is known, and beats nobody.
func (c *Comparison) front() {
	var candidates []*Run
	for i := range c.Runs {
		r := &c.Runs[i]
		if (len(c.chosen) == 0 || c.chosen[r.ID]) && r.Metering == Measured && r.Emissions.Known() && r.Accuracy.Known() {
			candidates = append(candidates, r)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *Run) int {
		return cmp.Or(cmp.Compare(a.Emissions, b.Emissions), cmp.Compare(b.Accuracy, a.Accuracy))
	})
	best := Value(math.Inf(-1))
	for _, r := range candidates {
		if r.Accuracy > best {
			r.Pareto, best = true, r.Accuracy
		}
	}
}

// sort puts the runs into the order of a column; a run that has no such figure comes last. Without a column nested runs
// come right after their parents.
func (c *Comparison) sort(by string) {
	if by == "" {
		c.Runs = below(c.Runs)
		return
	}
	key, descending := strings.CutPrefix(by, "-")
	i := slices.IndexFunc(columns, func(col column) bool { return col.key == key })
	if i < 0 {
		return
	}
	col := columns[i]
	slices.SortStableFunc(c.Runs, func(a, b Run) int {
		order := 0
		if col.value != nil {
			x, y := col.value(a), col.value(b)
			switch {
			case !x.Known() || !y.Known():
				return cmp.Compare(rank(x), rank(y))
			default:
				order = cmp.Compare(x, y)
			}
		} else {
			order = cmp.Compare(strings.ToLower(col.text(a)), strings.ToLower(col.text(b)))
		}
		if descending {
			return -order
		}
		return order
	})
}

// below puts nested runs right after their parents, in the order in which they are.
func below(runs []Run) []Run {
	here := map[string]bool{}
	for _, r := range runs {
		here[r.ID] = true
	}
	children := map[string][]Run{}
	for _, r := range runs {
		if here[r.Parent] && r.Parent != r.ID {
			children[r.Parent] = append(children[r.Parent], r)
		}
	}
	ordered, put := make([]Run, 0, len(runs)), map[string]bool{}
	var add func(r Run)
	add = func(r Run) {
		if put[r.ID] { // tags are the users': they may go round in circles
			return
		}
		put[r.ID] = true
		ordered = append(ordered, r)
		for _, child := range children[r.ID] {
			add(child)
		}
	}
	for _, r := range runs {
		if !here[r.Parent] || r.Parent == r.ID {
			add(r)
		}
	}
	for _, r := range runs {
		add(r)
	}
	return ordered
}

func rank(v Value) int {
	if v.Known() {
		return 0
	}
	return 1
}

// RunURLs returns how to make the address of a run's page in MLflow, whose own pages lie at base.
func RunURLs(base, workspace string) func(experiment, run string) string {
	return func(experiment, run string) string {
		u := base + "#/experiments/" + url.PathEscape(experiment) + "/runs/" + url.PathEscape(run)
		if workspace != "" {
			u += "?workspace=" + url.QueryEscape(workspace)
		}
		return u
	}
}
