package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAClientThatHangsUpCancelsTheUpstream(t *testing.T) {
	t.Parallel()
	begun, cancelled := make(chan struct{}), make(chan struct{})
	front, _ := forwardTo(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(cancelled)
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, front, nil)
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-begun
	cancel()
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream goes on for nobody")
	}
}

// But an update that was sent whole is carried out, as the server itself would: the run has ended, with its figures.
func TestAClientThatHangsUpDuringTheUpdateHasEndedItsRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	reached, release := make(chan struct{}), make(chan struct{})
	b.mlflow.hook = func(_ http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name == "log-batch" {
			close(reached)
			<-release
		}
		return false
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	require.NoError(t, err)
	body := `{"run_id":"` + id + `","status":"FINISHED"}`
	_, _ = io.WriteString(conn, "POST /api/2.0/mlflow/runs/update HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(len(body))+"\r\n\r\n"+body)
	<-reached
	require.NoError(t, conn.Close())
	close(release)
	require.Eventually(t, func() bool { return b.open() == 0 }, 10*time.Second, 10*time.Millisecond)
	r := b.mlflow.of(id)
	assert.Equal(t, "FINISHED", r.status)
	assert.Len(t, r.batches, 1)
	assert.Greater(t, r.metrics[metricEmissions], 0.0)
}
