package report

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// A nested run's energy is in its parent's already: counted twice, the totals would be too high.
func TestNestedRunsAreCountedOnce(t *testing.T) {
	t.Parallel()
	parent := measuredRun("parent", 10, 0.8)
	child := measuredRun("child", 4, 0.8, tagParent, "parent")
	grandchild := measuredRun("grandchild", 1, 0.8, tagParent, "child")
	elsewhere := measuredRun("elsewhere", 3, 0.8, tagParent, "parent", tagHost, "another machine") // its proxy did not meter the parent
	later := measuredRun("later", 2, 0.8, tagParent, "parent")
	later["info"].(map[string]any)["start_time"] = 1700000060001 // after the parent's end
	orphan := measuredRun("orphan", 5, 0.8, tagParent, "not here")
	round := measuredRun("round", 7, 0.8, tagParent, "round") // a tag of the user's own making
	bare := wireRun("bare", nil, map[string]string{tagSkip: "true", tagHost: "here"})
	ofBare := measuredRun("of bare", 6, 0.8, tagParent, "bare")
	s := newServer(t, grandchild, ofBare, bare, child, elsewhere, later, orphan, round, parent)

	c := load(t, s, Query{})
	inside := map[string]bool{}
	for _, r := range c.Runs {
		inside[r.ID] = r.Inside
	}
	assert.Equal(t, map[string]bool{"parent": false, "child": true, "grandchild": true, "elsewhere": false, "later": false, "orphan": false, "round": false, "bare": false, "of bare": false}, inside)
	total := c.Total()
	assertMass(t, 10+3+2+5+7+6, total.Emissions)
	assert.Equal(t, 9, total.Runs)
	assert.Equal(t, 1, total.WithoutFigures)
	assert.Equal(t, []string{"bare", "of bare", "orphan", "round", "parent", "child", "grandchild", "elsewhere", "later"}, names(c.Runs), "after their parents")

	c = load(t, s, Query{Runs: []string{"child", "grandchild"}})
	assertMass(t, 4, c.Total().Emissions)
	assert.Equal(t, 2, c.Total().Runs, "where the parent is not chosen, the child counts")
}

// Names that go round in circles must not keep us for ever.
func TestParentsInCircles(t *testing.T) {
	t.Parallel()
	c := load(t, newServer(t, measuredRun("a", 1, 0.8, tagParent, "b"), measuredRun("b", 2, 0.8, tagParent, "a")), Query{})
	assert.Len(t, c.Runs, 2)
}

// The front is of those that no other beats, and what is partial emitted more than is known.
func TestFront(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("cheap", 1, 0.7), measuredRun("worse for more", 2, 0.6), measuredRun("better", 3, 0.9), measuredRun("as good for more", 4, 0.9),
		measuredRun("as cheap, worse", 1, 0.65), measuredRun("partial", 0.5, 0.95, tagStatus, "partial: a gap"), wireRun("without", map[string]float64{"test_accuracy": 1}, nil))
	var front []string
	for _, r := range load(t, s, Query{}).Runs {
		if r.Pareto {
			front = append(front, r.ID)
		}
	}
	assert.Equal(t, []string{"cheap", "better"}, front)
	for _, r := range load(t, s, Query{Runs: []string{"worse for more", "as good for more"}}).Runs {
		assert.Equal(t, r.ID == "worse for more" || r.ID == "as good for more", r.Pareto, "of the chosen: %s", r.ID)
	}
}

func TestTotals(t *testing.T) {
	t.Parallel()
	grace := measuredRun("grace's", 500, 0.8)
	grace["info"].(map[string]any)["user_id"] = "grace"
	grace["info"].(map[string]any)["start_time"] = 1704067199999 // the last moment of 2023, in UTC
	partial := measuredRun("partial", 50, 0.8, tagStatus, "partial: a gap")
	c := load(t, newServer(t, grace, measuredRun("one", 100, 0.8), partial, wireRun("none", nil, map[string]string{tagStatus: "unmeasured: elsewhere"})), Query{})
	total := c.Total()
	assertMass(t, 650, total.Emissions)
	assertMass(t, 650*0.8, total.Low)
	assert.Equal(t, 1, total.Incomplete)
	assert.Equal(t, "1 run without figures not counted; 1 run partial or still running: at least so much", total.Caveat())
	assert.InEpsilon(t, 650/12.4, float64(total.PhoneCharges()), 1e-12)
	assert.InEpsilon(t, 650/244.199, float64(total.Kilometres()), 1e-5, "393 g a mile of 1.609344 km")
	users := c.ByUser()
	require.Len(t, users, 2)
	assert.Equal(t, "grace", users[0].Name, "the largest first")
	assertMass(t, 150, users[1].Emissions)
	months := c.ByMonth()
	require.Len(t, months, 2)
	assert.Equal(t, []string{"2023-12", "2023-11"}, []string{months[0].Name, months[1].Name})
	assertMass(t, 500, months[0].Emissions)
	require.Len(t, c.ByExperiment(), 1)
	assert.Equal(t, "pictures", c.ByExperiment()[0].Name)
}

// MLflow gives so many runs at once and no more; what comes after them counts, too.
func TestAllPagesAreRead(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range 1001 {
		s.runs = append(s.runs, measuredRun(fmt.Sprint(i), 1, 0.8))
	}
	c := load(t, s, Query{Filter: "metrics.a > 1", RunningOnly: true})
	assert.Len(t, c.Runs, 1001)
	assert.Empty(t, c.Next)
	_, searches := s.asked()
	assert.Equal(t, "metrics.a > 1 and attributes.status = 'RUNNING'", searches[0]["filter"])
	assert.Equal(t, "ACTIVE_ONLY", searches[0]["run_view_type"])

	c = load(t, s, Query{Limit: 300})
	require.Len(t, c.Runs, 300)
	assert.Equal(t, "300", c.Next)
	c = load(t, s, Query{Limit: 300, PageToken: c.Next})
	assert.Equal(t, "300", c.Runs[0].ID)
	s.asked()
	c = load(t, s, Query{RunningOnly: true})
	_, searches = s.asked()
	assert.Equal(t, "attributes.status = 'RUNNING'", searches[0]["filter"])
	assert.Len(t, c.Runs, 1001)
}

func TestSort(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("b", 2, 0.8), wireRun("none", nil, nil), measuredRun("a", 10, 0.8), measuredRun("c", 1, 0.9))
	for by, want := range map[string][]string{
		"emissions_g": {"c", "b", "a", "none"}, "-emissions_g": {"a", "b", "c", "none"}, "name": {"a", "b", "c", "none"}, "-name": {"none", "c", "b", "a"},
		"-accuracy": {"c", "b", "a", "none"}, "": {"b", "none", "a", "c"}, "no such": {"b", "none", "a", "c"},
	} {
		assert.Equal(t, want, names(load(t, s, Query{Sort: by}).Runs), by)
	}
}

func TestMetering(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  mlflow.Run
		want Metering
		why  string
	}{
		"measured":        {mlflow.Run{Tags: map[string]string{tagStatus: "measured"}}, Measured, ""},
		"partial":         {mlflow.Run{Tags: map[string]string{tagStatus: "partial: gpu covered for 75 %: lost"}}, Partial, "gpu covered for 75 %: lost"},
		"unmeasured":      {mlflow.Run{Tags: map[string]string{tagStatus: "unmeasured: elsewhere"}}, Unmeasured, "elsewhere"},
		"running":         {mlflow.Run{Status: "RUNNING"}, Running, ""},
		"resumed":         {mlflow.Run{Status: "RUNNING", Tags: map[string]string{tagStatus: "measured"}}, Running, ""},
		"skipped":         {mlflow.Run{Status: "RUNNING", Tags: map[string]string{tagSkip: "true"}}, Skipped, "its tag emissions.skip says so"},
		"unseen":          {mlflow.Run{Status: "FINISHED"}, Unseen, "it did not go through this proxy, or was not metered yet"},
		"without an end":  {mlflow.Run{Status: "FAILED", Tags: map[string]string{tagVersion: "0.1.0"}}, Partial, "the metering did not see its end"},
		"partly its own":  {mlflow.Run{Tags: map[string]string{tagStatus: "measured", tagClientMetrics: "emissions_g"}}, Measured, "the client's own: emissions_g"},
		"somebody else's": {mlflow.Run{Tags: map[string]string{tagStatus: "great"}}, Unseen, "it did not go through this proxy, or was not metered yet"},
	} {
		r := runOf(c.run)
		assert.Equal(t, c.want, r.Metering, name)
		assert.Equal(t, c.why, r.Why, name)
	}
}

// The first guess at what a bubble shows, and what people write as the number of a model's parameters.
func TestSizes(t *testing.T) {
	t.Parallel()
	guess := func(params map[string]string, metrics ...string) string {
		r := mlflow.Run{Params: params, Metrics: map[string]mlflow.Metric{metricEmissions: {}, metricCPU: {}}}
		for _, m := range metrics {
			r.Metrics[m] = mlflow.Metric{Value: 1}
		}
		_, size := sizes([]mlflow.Run{r})
		return size
	}
	for name, want := range map[string]string{
		"n_params": "param:n_params", "num_parameters": "param:num_parameters", "total_params": "param:total_params", "params": "param:params", "Parameters": "param:Parameters",
		"trainable_params": "param:trainable_params", "model_parameters": "param:model_parameters", "param_count": "param:param_count", "nparams": "param:nparams",
		"lr": sizeNone, "hyperparams_set": sizeNone, "max_iter": sizeNone, "params_source": sizeNone,
	} {
		assert.Equal(t, want, guess(map[string]string{name: "5", "lr": "0.1"}), name)
	}
	assert.Equal(t, sizeNone, guess(map[string]string{"n_params": "many"}), "no number")
	assert.Equal(t, "metric:total_params", guess(map[string]string{"trainable_params": "7"}, "total_params"), "all of them before those that are trained")
	all, _ := sizes([]mlflow.Run{{Metrics: map[string]mlflow.Metric{metricEmissions: {}, "system/cpu": {}, "loss": {}}, Params: map[string]string{"a": "1", "b": "x"}}})
	assert.Equal(t, []string{"metric:loss", "param:a"}, all)
	for text, want := range map[string]Value{"25636712": 25636712, "25,636,712": 25636712, "25_636_712": 25636712, "25.6M": 25.6e6, "7B": 7e9, "110k": 110e3, " 1.5e6 ": 1.5e6} {
		assert.Equal(t, want, magnitude(text), text)
	}
	for _, text := range []string{"", "M", "inf", "NaN", "0x", "large"} {
		assert.False(t, magnitude(text).Known(), text)
	}
}

func TestTheDurationOfARunningRun(t *testing.T) {
	t.Parallel()
	r := runOf(mlflow.Run{Status: "RUNNING", Start: time.Unix(1, 0), Metrics: map[string]mlflow.Metric{metricEmissions: {Value: 1, Step: 90}}, Tags: map[string]string{tagVersion: "0.1.0"}})
	assert.Equal(t, Value(90), r.Duration)
}
