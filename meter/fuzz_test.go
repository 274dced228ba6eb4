package meter

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/stretchr/testify/require"
)

// fuzzedFile makes a /proc with one file, and returns how to fill it.
func fuzzedFile(f *testing.F, name string) (root string, fill func(*testing.T, []byte)) {
	f.Helper()
	root = memoryDir(f)
	path := filepath.Join(root, name)
	require.NoError(f, os.MkdirAll(filepath.Dir(path), 0o755))
	return root, func(t *testing.T, b []byte) { require.NoError(t, os.WriteFile(path, b, 0o644)) }
}

func FuzzMachine(f *testing.F) {
	f.Add([]byte("cpu  1 2 4 1000 1000 8 16 1000 1000 1000\ncpu0 1 2 4 8\nintr 1 2\nprocesses 77\n"))
	f.Add([]byte("cpu 99999999999999999999 -1\nprocesses -5\n"))
	f.Add([]byte("cpu \nprocesses"))
	root, fill := fuzzedFile(f, "stat")
	f.Fuzz(func(t *testing.T, b []byte) {
		fill(t, b)
		fs := procfs{root: root}
		busy, _, err := fs.machine()
		if busy < 0 || err != nil && busy != 0 {
			t.Fatalf("busy for %v, %v", busy, err)
		}
	})
}

func FuzzSocket(f *testing.F) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	f.Add([]byte(head + "   0: 0100007F:0050 0200007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 20 4 30 10 -1\n"))
	f.Add([]byte("   0: 0100007F:0050 0200007F:1F90 01 0 0 0 0 0 -1\n"))
	f.Add([]byte("   0: 0100007F:0050 0200007F:1F90 "))
	root, fill := fuzzedFile(f, "net/tcp")
	own, other := netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.2:8080")
	f.Fuzz(func(t *testing.T, b []byte) {
		fill(t, b)
		fs := procfs{root: root}
		if inode, err := fs.socket(own, other); (inode == 0) == (err == nil) || int64(inode) < 0 {
			t.Fatalf("inode %d, %v", inode, err)
		}
	})
}

func FuzzArguments(f *testing.F) {
	f.Add([]byte("python3\x00train.py\x00\x00x\x00"), 9, 5, 1)
	f.Add([]byte("-bash\x00"), 9, 5, 34816)
	f.Add([]byte("sshd: somebody [priv]\x00\x00\x00"), 9, 1, 0)
	f.Add([]byte(" \x00\x00-l"), 1, 0, 0)
	f.Add([]byte(""), 2, 0, 0)
	root, fill := fuzzedFile(f, "9/cmdline")
	f.Fuzz(func(t *testing.T, b []byte, pid, parent, tty int) {
		fill(t, b)
		fs := procfs{root: root}
		args := fs.arguments(9)
		n := 0
		for _, a := range args {
			n += len(a) + 1
		}
		if n > len(b)+1 {
			t.Fatalf("%d bytes of arguments from %d", n, len(b))
		}
		standsIn(stat{pid: pid, parent: parent, tty: tty}, args)
	})
}

func FuzzMeminfo(f *testing.F) {
	f.Add([]byte("MemTotal:        8000000 kB\nMemFree:         4000000 kB\nMemAvailable:    4000000 kB\nBuffers: 0 kB\nCached: 0 kB\n"))
	f.Add([]byte("MemTotal: 1 kB\nMemFree: 2 kB\nActive(file): 1 kB\nSReclaimable: 1 kB\n")) // a kernel before 3.14
	f.Add([]byte("MemTotal: 18446744073709551615 kB\nMemAvailable: -1 kB\n"))
	f.Add([]byte("MemTotal:\n:\nMemAvailable 1"))
	root, fill := fuzzedFile(f, "meminfo")
	ctx := context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: root})
	f.Fuzz(func(t *testing.T, b []byte) {
		fill(t, b)
		used, _ := memoryUsed(ctx)
		if v, err := mem.VirtualMemoryWithContext(ctx); err == nil && used > v.Total {
			t.Fatalf("%d of %d bytes in use", used, v.Total)
		}
	})
}
