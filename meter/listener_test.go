package meter

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The process that listens is found at its own address and, where it listens on all, at any; a forked worker that holds the
// same socket is not taken for it. Its environment and its files can be read.
func TestListener(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 to listen with")
	}
	for _, c := range []struct{ name, bind, at, elsewhere string }{
		{"its address", "127.0.0.1", "127.0.0.1", "127.0.0.2"},
		{"all addresses", "0.0.0.0", "127.0.0.1", ""},
		{"all addresses of both kinds", "::", "127.0.0.1", ""},
		{"IPv6", "::1", "::1", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			family := "AF_INET"
			if strings.Contains(c.bind, ":") {
				family = "AF_INET6"
			}
			cmd := exec.CommandContext(ctx, python, "-c", "import socket,os,time\ns=socket.socket(socket."+family+")\ns.bind(('"+c.bind+
				"',0))\ns.listen()\nos.fork() or time.sleep(60)\nprint(s.getsockname()[1],flush=True)\ntime.sleep(60)")
			cmd.Env = append(os.Environ(), "__pyfunc_model_path__=file:///tmp/model")
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			defer func() { cancel(); _ = cmd.Wait() }()
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Skipf("cannot listen at %s: %v", c.bind, err)
			}
			port, err := strconv.Atoi(strings.TrimSpace(line))
			require.NoError(t, err)

			m := &Meter{procfs: "/proc"}
			at := netip.AddrPortFrom(netip.MustParseAddr(c.at), uint16(port))
			p, err := m.Listener(at)
			require.NoError(t, err)
			assert.Equal(t, cmd.Process.Pid, p.PID)
			assert.NotZero(t, p.Start)
			if c.elsewhere != "" {
				_, err = m.Listener(netip.AddrPortFrom(netip.MustParseAddr(c.elsewhere), uint16(port)))
				require.ErrorIs(t, err, ErrNoPeer)
			}

			path, err := m.Variable(p, "__pyfunc_model_path__")
			require.NoError(t, err)
			assert.Equal(t, "file:///tmp/model", path)
			path, err = m.Variable(p, "__pyfunc_model_path")
			require.NoError(t, err)
			assert.Empty(t, path)
			_, err = m.Variable(Process{PID: p.PID, Start: p.Start + 1}, "PATH")
			require.ErrorIs(t, err, os.ErrNotExist, "another process by the same number")

			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600))
			b, err := os.ReadFile(m.File(p, filepath.Join(dir, "f")))
			require.NoError(t, err)
			assert.Equal(t, "x", string(b))
		})
	}
}
