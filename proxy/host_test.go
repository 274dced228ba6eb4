package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// MLflow answers 403 for a Host that it was not told of; its own works wherever direct access did.
func TestHostIsTheUpstreamsOwn(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Host)) }
	front, back := forwardTo(t, echo, nil)
	assert.Equal(t, strings.TrimPrefix(back, "http://"), text(t, do(t, "GET", front, http.Header{"Host": {"proxy.example"}}, nil)))
	front, _ = forwardTo(t, echo, func(c *forwardConfig) { c.UpstreamHost = "mlflow.internal" })
	assert.Equal(t, "mlflow.internal", text(t, do(t, "GET", front, nil, nil)))
}
