package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// RunQuery says which runs to search for.
type RunQuery struct {
	ExperimentIDs []string
	Filter        string   // as MLflow's search has it; empty: all
	OrderBy       []string // as MLflow's search has it; empty: the latest first
	Limit         int      // at most so many runs; 0: all
	PageToken     string   // where an earlier search stopped; empty: at the beginning
}

// searchPage is how many runs are asked for at once: few enough that runs of a thousand metrics stay below maxAnswer.
const searchPage = 200

// SearchRuns returns the active runs that a query finds, page by page, and where the next search may go on if there are
// more than the limit. It is an *APIError if the server refuses.
func (c *Client) SearchRuns(ctx context.Context, caller Caller, q RunQuery) (runs []Run, next string, err error) {
	type search struct {
		ExperimentIDs []string `json:"experiment_ids"`
		Filter        string   `json:"filter,omitempty"`
		OrderBy       []string `json:"order_by,omitempty"`
		MaxResults    int      `json:"max_results"`
		PageToken     string   `json:"page_token,omitempty"`
		RunViewType   string   `json:"run_view_type"`
	}
	next = q.PageToken
	for {
		page := searchPage
		if q.Limit > 0 {
			page = min(page, q.Limit-len(runs))
		}
		body, err := json.Marshal(search{q.ExperimentIDs, q.Filter, q.OrderBy, page, next, "ACTIVE_ONLY"})
		if err != nil {
			return nil, "", err
		}
		var answer struct {
			Runs []wireRun `json:"runs"`
			Next string    `json:"next_page_token"`
		}
		if err := c.call(ctx, caller, http.MethodPost, "runs/search", body, &answer); err != nil {
			return nil, "", fmt.Errorf("search runs: %w", err)
		}
		for _, r := range answer.Runs {
			runs = append(runs, r.run())
		}
		if answer.Next == next { // a server that does not go on must not keep us for ever
			return runs, "", nil
		}
		next = answer.Next
		if next == "" || q.Limit > 0 && len(runs) >= q.Limit {
			return runs, next, nil
		}
	}
}

// Experiment is an experiment as the server has it.
type Experiment struct {
	ID, Name string
	Updated  time.Time // zero if the server does not say
	Tags     map[string]string
}

type wireExperiment struct {
	ID      string     `json:"experiment_id"`
	Name    string     `json:"name"`
	Updated wireNumber `json:"last_update_time"`
	Tags    []Tag      `json:"tags"`
}

func (w wireExperiment) experiment() Experiment {
	e := Experiment{ID: w.ID, Name: w.Name, Updated: fromMillis(w.Updated)}
	if len(w.Tags) > 0 {
		e.Tags = map[string]string{}
	}
	for _, t := range w.Tags {
		e.Tags[t.Key] = t.Value
	}
	return e
}

// SearchExperiments returns the active experiments, at most limit of them, the latest first, and whether there are more.
// It is an *APIError if the server refuses.
func (c *Client) SearchExperiments(ctx context.Context, caller Caller, limit int) (found []Experiment, more bool, err error) {
	type search struct {
		MaxResults int      `json:"max_results"`
		PageToken  string   `json:"page_token,omitempty"`
		OrderBy    []string `json:"order_by"`
	}
	next := ""
	for {
		body, err := json.Marshal(search{min(searchPage, limit-len(found)), next, []string{"last_update_time DESC"}})
		if err != nil {
			return nil, false, err
		}
		var answer struct {
			Experiments []wireExperiment `json:"experiments"`
			Next        string           `json:"next_page_token"`
		}
		if err := c.call(ctx, caller, http.MethodPost, "experiments/search", body, &answer); err != nil {
			return nil, false, fmt.Errorf("search experiments: %w", err)
		}
		for _, e := range answer.Experiments {
			found = append(found, e.experiment())
		}
		if answer.Next == "" || answer.Next == next || len(found) >= limit {
			return found, answer.Next != "" && answer.Next != next, nil
		}
		next = answer.Next
	}
}

// Experiment reads an experiment by its id. It is an *APIError if the server refuses.
func (c *Client) Experiment(ctx context.Context, caller Caller, id string) (Experiment, error) {
	return c.experiment(ctx, caller, "get?experiment_id="+url.QueryEscape(id), id)
}

// ExperimentByName reads an experiment by its name. It is an *APIError if the server refuses.
func (c *Client) ExperimentByName(ctx context.Context, caller Caller, name string) (Experiment, error) {
	return c.experiment(ctx, caller, "get-by-name?experiment_name="+url.QueryEscape(name), name)
}

// FindExperiment reads an experiment by its name, or by its id where there is none of this name. It is an *APIError if the
// server refuses: of status 404 where there is neither.
func (c *Client) FindExperiment(ctx context.Context, caller Caller, nameOrID string) (Experiment, error) {
	e, err := c.ExperimentByName(ctx, caller, nameOrID)
	var refused *APIError
	if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
		if byID, idErr := c.Experiment(ctx, caller, nameOrID); idErr == nil {
			return byID, nil
		}
	}
	return e, err
}

func (c *Client) experiment(ctx context.Context, caller Caller, call, which string) (Experiment, error) {
	var answer struct {
		Experiment wireExperiment `json:"experiment"`
	}
	if err := c.call(ctx, caller, http.MethodGet, "experiments/"+call, nil, &answer); err != nil {
		return Experiment{}, fmt.Errorf("read experiment %s: %w", which, err)
	}
	return answer.Experiment.experiment(), nil
}

// historyLimit is the most values of a metric that the server gives at once.
const historyLimit = 25000

// MetricHistory reads the values of one metric of a run, in the server's order, at most historyLimit of them: a curve
// that we log ourselves, of which there is a value every half minute. It is an *APIError if the server refuses.
func (c *Client) MetricHistory(ctx context.Context, caller Caller, runID, key string) ([]Metric, error) {
	var answer struct {
		Metrics []wireMetric `json:"metrics"`
	}
	query := url.Values{"run_id": {runID}, "metric_key": {key}, "max_results": {strconv.Itoa(historyLimit)}}
	if err := c.call(ctx, caller, http.MethodGet, "metrics/get-history?"+query.Encode(), nil, &answer); err != nil {
		return nil, fmt.Errorf("read the curve of run %s: %w", runID, err)
	}
	values := make([]Metric, 0, len(answer.Metrics))
	for _, m := range answer.Metrics {
		values = append(values, m.metric())
	}
	return values, nil
}
