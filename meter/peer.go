package meter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Process names a process for good: pids are reused, the pair is not.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // ticks since boot
}

// ErrNoPeer says that no process on this machine that we can see holds the other end of a connection.
var ErrNoPeer = errors.New("no visible process holds the other end of the connection")

// Peer finds the process at the other end of a TCP connection that was accepted on this machine. local and remote are
// the connection's ends as the acceptor sees them. It takes about a millisecond, mostly over /proc/*/fd, so
// callers ask once per connection. The error wraps ErrNoPeer where nothing was found.
func (m *Meter) Peer(local, remote netip.AddrPort) (Process, error) {
	return m.named("connection", func(sys system) (int, error) { return sys.peer(local, remote) })
}

// named returns for good the process that a look-up finds by its pid; of says whose it is, for an error.
func (m *Meter) named(of string, lookUp func(system) (int, error)) (Process, error) {
	sys := openSystem(m.procfs) // of this call's own: it runs beside the sampler
	pid, err := lookUp(sys)
	if err != nil {
		return Process{}, err
	}
	s, err := sys.stat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("read the %s's process: %w", of, err)
	}
	return Process{PID: pid, Start: s.start}, nil
}

// peer is system's.
func (fs *procfs) peer(local, remote netip.AddrPort) (int, error) {
	inode, err := fs.socket(remote, local)
	if err != nil {
		return 0, err
	}
	return fs.holder(inode)
}

// socket returns the inode of the connected socket whose own end is own and whose other end is other. A client that
// speaks IPv4 through an IPv6 socket, as Java does, is listed in tcp6 with mapped addresses.
func (fs *procfs) socket(own, other netip.AddrPort) (uint64, error) {
	own = netip.AddrPortFrom(own.Addr().Unmap(), own.Port())
	other = netip.AddrPortFrom(other.Addr().Unmap(), other.Port())
	files := []struct {
		name string
		six  bool
	}{{"tcp", false}, {"tcp6", true}}
	var missing error
	for _, f := range files {
		if own.Addr().Is6() && !f.six {
			continue
		}
		b, err := fs.read("net", f.name)
		if err != nil {
			if f.name == "tcp" || own.Addr().Is6() {
				missing = err
			}
			continue
		}
		i := bytes.Index(b, []byte(" "+hexAddr(own, f.six)+" "+hexAddr(other, f.six)+" "))
		if i < 0 {
			continue
		}
		line := b[i:]
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line = line[:n]
		}
		// local, remote, state, queues, timer, retransmits, uid, timeout, inode
		fields := bytes.Fields(line)
		if len(fields) < 9 {
			return 0, fmt.Errorf("read %s/net/%s: short line", fs.root, f.name)
		}
		if n, ok := number(fields[8]); ok && n > 0 { // 0: closing, no process holds it any more
			return uint64(n), nil
		}
	}
	if missing != nil {
		return 0, missing
	}
	return 0, ErrNoPeer
}

// hexAddr writes an address as /proc/net/tcp does: 32-bit words in the machine's byte order.
func hexAddr(a netip.AddrPort, six bool) string {
	raw := a.Addr().AsSlice()
	if six {
		b := a.Addr().As16()
		raw = b[:]
	}
	var out []byte
	for w := range slices.Chunk(raw, 4) {
		out = fmt.Appendf(out, "%08X", binary.NativeEndian.Uint32(w))
	}
	return fmt.Sprintf("%s:%04X", out, a.Port())
}

// holder returns the process that holds the socket. A fork inherits it, so where parent and child both hold it, the
// parent, whose tree has the child in it, is meant.
func (fs *procfs) holder(inode uint64) (int, error) {
	target := fmt.Sprintf("socket:[%d]", inode)
	pids, err := fs.pids()
	if err != nil {
		return 0, err
	}
	self := os.Getpid()
	slices.Sort(pids)
	slices.Reverse(pids) // trainers are younger than the system's daemons
	for _, pid := range pids {
		if pid == self && fs.root == "/proc" || !fs.holds(pid, target) {
			continue
		}
		for {
			s, err := fs.stat(pid)
			if err != nil || s.parent <= 1 || !fs.holds(s.parent, target) {
				return pid, nil
			}
			pid = s.parent
		}
	}
	return 0, ErrNoPeer
}

func (fs *procfs) holds(pid int, target string) bool {
	dir := filepath.Join(fs.root, strconv.Itoa(pid), "fd")
	d, err := os.Open(dir)
	if err != nil {
		return false // gone, or another user's
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return false
	}
	for _, name := range names {
		if to, err := os.Readlink(filepath.Join(dir, name)); err == nil && to == target {
			return true
		}
	}
	return false
}
