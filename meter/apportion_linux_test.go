package meter

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A process whose pages cannot be walked for as long as it holds a lock on them holds up no reading of the sensors.
func TestAStuckProcessHoldsUpNoReading(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin("a", "", m.fork(100, 50, "python"))
	pages := filepath.Join(m.root, "100", "smaps_rollup")
	require.NoError(t, unix.Mkfifo(pages, 0o600)) // opening it waits for a writer
	var readings atomic.Int64
	m.meter.onSample = func(time.Duration) { readings.Add(1) }
	m.meter.interval = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.meter.Run(ctx) }()
	assert.Eventually(t, func() bool { return readings.Load() > 20 }, 5*time.Second, time.Millisecond)
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		assert.Fail(t, "Run waits for it")
	}
	if f, err := os.OpenFile(pages, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		f.Close()
	}
}
