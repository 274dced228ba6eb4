package proxy

import (
	"encoding/json"
	"strconv"
	"time"
)

// statusRecorded is the status of a run that was over before it was created. scikit-learn's autologging makes the runs
// of a search's candidates so, once the search has ended, and tools that copy runs from server to server do: what was
// used meanwhile is the copying's, not the run's.
const statusRecorded = "unmeasured: it was recorded when it was over"

// firstPlausible is the earliest end of a run that is taken for one, in ms: what lies before 1973 is a placeholder, or
// given in seconds.
const firstPlausible = 1e11

// endTime returns when a run ended by its client's word. It is zero where that says nothing.
func endTime(m map[string]json.RawMessage) time.Time {
	ms, err := strconv.ParseInt(field(m, "end_time", "endTime"), 10, 64)
	if err != nil || ms < firstPlausible {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// noticeEnd compares when a run ended by its client's word with when it was created here: both are this machine's time,
// since no other clients' runs are measured. A time in whole seconds, as a shell's script has it, is compared as such.
// Callers hold Proxy.mu.
func (r *run) noticeEnd(ended time.Time) {
	step := time.Millisecond
	if ended.Equal(ended.Truncate(time.Second)) {
		step = time.Second
	}
	r.recorded = !ended.IsZero() && ended.Before(r.created.Truncate(step))
}

// whyNot returns the status of a run of which nothing was measured; empty where something was.
func (r *run) whyNot() string {
	if r.session != nil && r.recorded {
		return statusRecorded
	}
	return r.unmeasured
}
