package meter

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	s, err := parseStat([]byte("42 (a (b) c) R 7 41 40 34816 42 4194304 1 2 3 4 11 12 13 14 20 0 1 0 123456 1000 5 18446744073709551615 1 1\n"))
	require.NoError(t, err)
	assert.Equal(t, stat{pid: 42, parent: 7, leaders: [2]int{41, 40}, start: 123456, tty: 34816, own: 230 * time.Millisecond,
		children: 270 * time.Millisecond, memory: 5 * uint64(os.Getpagesize())}, s)
	for _, bad := range []string{"", "42", "42 (x", "(x) R 1", "42 (x) R", "42 (x) R 1 2 3 4 5 6 7 8 9 a b c d", ")(", "x (y) R 1"} {
		_, err := parseStat([]byte(bad))
		assert.Error(t, err, bad)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a (b) c) R 7 42 42 34816 42 4194304 1 2 3 4 11 12 13 14 20 0 1 0 123456 1000 5 18446744073709551615 1 1\n"))
	f.Add([]byte("1 () S -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -9223372036854775808 9223372036854775807 99999999999999999999 1 1 1 1 1 1 1 -5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		if err == nil && (s.own < 0 || s.children < 0) {
			t.Fatalf("negative time: %+v", s)
		}
	})
}

func linuxOnly(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
}

// The other end of a real connection is found: over IPv4, over IPv6, and as an IPv4 client of a socket that speaks both.
func TestPeerOfARealConnection(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 to connect from")
	}
	for _, c := range []struct{ name, listen, script string }{
		{"IPv4", "127.0.0.1:0", "socket.create_connection(('127.0.0.1', port))"},
		{"IPv6", "[::1]:0", "socket.create_connection(('::1', port))"},
		{"IPv4 through an IPv6 socket, as Java does", "127.0.0.1:0",
			"s=socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0); s.connect(('::ffff:127.0.0.1', port))"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", c.listen)
			if err != nil {
				t.Skipf("cannot listen on %s: %v", c.listen, err)
			}
			defer l.Close()
			port := netip.MustParseAddrPort(l.Addr().String()).Port()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			// The fork inherits the socket; its parent is meant.
			cmd := exec.CommandContext(ctx, python, "-c", "import socket,os,sys,time\nport=int(sys.argv[1])\nk="+c.script+"\nos.fork()\ntime.sleep(60)", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[8:])
			require.NoError(t, cmd.Start())
			defer func() { cancel(); _ = cmd.Wait() }()
			conn, err := l.Accept()
			require.NoError(t, err)
			defer conn.Close()
			m := &Meter{procfs: "/proc"}
			p, err := m.Peer(netip.MustParseAddrPort(conn.LocalAddr().String()), netip.MustParseAddrPort(conn.RemoteAddr().String()))
			require.NoError(t, err)
			assert.Equal(t, cmd.Process.Pid, p.PID)
		})
	}
}

func TestPeerThatIsNotThere(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	m := &Meter{procfs: "/proc"}
	_, err := m.Peer(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"))
	assert.ErrorIs(t, err, ErrNoPeer)
}

// A process's clock is finer than the ticks in its stat file, and agrees with them: user and system time are each cut off
// to a tick there.
func TestProcessClock(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	fs := newProcfs("/proc")
	before, ok := processClock(os.Getpid())
	require.True(t, ok)
	b, err := fs.read(strconv.Itoa(os.Getpid()), "stat")
	require.NoError(t, err)
	ticks, err := parseStat(b)
	require.NoError(t, err)
	s, err := fs.stat(os.Getpid())
	require.NoError(t, err)
	after, ok := processClock(os.Getpid())
	require.True(t, ok)
	assert.Greater(t, ticks.own, before-2*tick)
	assert.Less(t, ticks.own, after)
	assert.LessOrEqual(t, before, s.own)
	assert.LessOrEqual(t, s.own, after)
	assert.NotZero(t, s.own%tick, "finer than a tick")
}

func TestMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("stat", "cpu  1 2 4 1000 1000 8 16 1000 1000 1000\nintr 1 2\nprocesses 77\n")
	busy, forks, err := m.meter.sys.machine()
	require.NoError(t, err)
	assert.Equal(t, 310*time.Millisecond, busy, "idle, waiting and stolen time are not used; guest time is in user time already")
	assert.EqualValues(t, 77, forks)
	for _, bad := range []string{"", "cpu0 1 2\n", "cpu  1 x 3\n"} {
		m.write("stat", bad)
		_, _, err := m.meter.sys.machine()
		assert.Error(t, err, bad)
	}
}
