package proxy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Credentials of a request are taken for the run that it is about. Another run's id somewhere in the body, which anybody
// may write there, is not that.
func TestLogsTo(t *testing.T) {
	t.Parallel()
	c := &connection{}
	assert.Nil(t, c.logsTo([]byte(`{"run_id":"abc"}`)))
	r := newRun("abc")
	c.joined.Store(r)
	for body, want := range map[string]bool{
		`{"run_id": "abc", "metrics": []}`:                true,
		`{"run_id":"abc","key":"loss"}`:                   true,
		"{\n  \"run_id\" : \"abc\"}":                      true,
		`{"run_id": "other", "key": "abc"}`:               false,
		`{"run_id": "other", "tags": [{"run_id":"abc"}]}`: false,
		`{"run_id": "abcd"}`:                              false,
		`{"run_uuid": "abc"}`:                             true,
		`{"run_uuid": "abc", "run_id": "other"}`:          false,
		``:                                                false,
	} {
		assert.Equal(t, want, c.logsTo([]byte(body)) != nil, body)
	}
	r.over.Store(true)
	assert.Nil(t, c.logsTo([]byte(`{"run_id": "abc"}`)))
}
