package meter

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What macOS and Windows are asked can be asked of Linux, too.
func TestPortable(t *testing.T) {
	t.Parallel()
	var sys portable
	s, err := sys.stat(os.Getpid())
	require.NoError(t, err)
	assert.Equal(t, os.Getppid(), s.parent)
	assert.Positive(t, s.start)
	assert.Positive(t, s.memory)
	again, err := sys.stat(os.Getpid())
	require.NoError(t, err)
	assert.Equal(t, s.start, again.start, "it names the process for good")
	_, err = sys.stat(1 << 30)
	assert.Error(t, err)

	pids, err := sys.pids()
	require.NoError(t, err)
	assert.Contains(t, pids, os.Getpid())
	assert.Equal(t, os.Args, sys.arguments(os.Getpid()))
	environment, err := sys.environment(os.Getpid())
	require.NoError(t, err)
	assert.NotEmpty(t, environment)
	used, err := sys.memoryUsed()
	require.NoError(t, err)
	assert.Positive(t, used)

	busy, forks, err := sys.machine()
	require.NoError(t, err)
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
	}
	later, more, err := sys.machine()
	require.NoError(t, err)
	assert.Greater(t, later, busy)
	assert.Greater(t, more, forks)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	local, remote := netip.MustParseAddrPort(l.Addr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())
	pid, err := sys.peer(local, remote)
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), pid)
	_, err = sys.peer(local, netip.MustParseAddrPort("127.0.0.1:1"))
	assert.ErrorIs(t, err, ErrNoPeer)
}

// A run is metered by what is there on every system.
func TestMeteringWithoutProc(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell")
	}
	m := &Meter{unit: UnitProcess, interval: time.Second, now: time.Now, boot: bootTime, log: slog.New(slog.DiscardHandler),
		cpu: &fakeSensor{idle: 20, perCPU: 30}, ram: &fakeSensor{idle: 4}, sys: portable{}}
	m.begin()
	cmd := exec.CommandContext(t.Context(), sh, "-c", "while :; do :; done")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s, err := m.Begin("a", "", ScopeProcess, Process{PID: cmd.Process.Pid})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r := s.Record()
		return r.Energy()[CPU] > 1 && r.Energy()[RAM] > 0
	}, 30*time.Second, 20*time.Millisecond)
	total := m.Totals()
	for c := range total.Sensors {
		assert.InDelta(t, total.Sensors[c].Joules(), (total.Runs[c] + total.Rest[c]).Joules(), 1e-6)
	}
}
