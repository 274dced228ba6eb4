package proxy

import (
	"crypto/rand"
	"net/http"
	"slices"
)

// passedHeader names the proxies of ours that a request has passed. Via would be the standard's, but servers read more into
// it: nginx does not compress for a request that has one.
const passedHeader = "X-Mlflow-Emissions-Passed"

// loop answers requests that have been here before: the upstream is this proxy itself, or something that leads back.
// Each would else go round until there are no more ports.
type loop struct {
	next http.Handler
	id   string // of this process
}

func newLoop(next http.Handler) *loop { return &loop{next: next, id: rand.Text()[:12]} }

// ServeHTTP forwards a request with our mark.
func (l *loop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	passed := r.Header[passedHeader]
	if slices.Contains(passed, l.id) {
		refuse(w, http.StatusLoopDetected, "INVALID_STATE",
			"mlflow-emissions-proxy: --upstream leads back to this proxy; give it the MLflow server's own address")
		return
	}
	r.Header[passedHeader] = append(passed[:len(passed):len(passed)], l.id)
	l.next.ServeHTTP(w, r)
}
