package report

import (
	"net/url"
	"slices"
	"strings"
)

// The page's state stands in its address, so that it can be shared: which experiments and runs, in which order, which
// columns, and what the bubbles show.

// view is what an address of the page asks for.
type view struct {
	Query
	Columns   []string // to show; empty: the usual
	Workspace string   // MLflow's, which a browser cannot name by header
}

// viewOf reads an address.
func viewOf(q url.Values) view {
	nonempty := func(name string) []string {
		var all []string
		for _, v := range q[name] {
			if v != "" && !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
		return all
	}
	return view{
		Query: Query{
			Experiments: nonempty("experiment"), Runs: nonempty("run"), Filter: strings.TrimSpace(q.Get("filter")), Size: q.Get("size"),
			Sort: q.Get("sort"), PageToken: q.Get("page_token"), RunningOnly: q.Get("running") != "",
		},
		Columns: nonempty("col"), Workspace: q.Get("workspace"),
	}
}

// address is the inverse of viewOf, relative to the page. Parameters that say nothing are left out.
func (v view) address() string {
	q := url.Values{}
	set := func(name string, values ...string) {
		for _, value := range values {
			if value != "" {
				q.Add(name, value)
			}
		}
	}
	set("workspace", v.Workspace)
	set("experiment", v.Experiments...)
	set("filter", v.Filter)
	set("run", v.Runs...)
	set("size", v.Size)
	set("sort", v.Sort)
	set("col", v.Columns...)
	return "?" + q.Encode()
}

// sorted returns the view in another column's order: numbers the largest first, texts from A on; the other way round if
// it is in that order already.
func (v view) sorted(c column) view {
	first, second := "-"+c.key, c.key
	if c.value == nil {
		first, second = second, first
	}
	if v.Sort == first {
		first = second
	}
	v.Sort = first
	return v
}
