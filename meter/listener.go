package meter

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
)

// Listener finds the process that accepts TCP connections at an address of this machine. Where a parent and its children
// share the socket, as a server's workers do, it is the parent. The error wraps ErrNoPeer where no visible process does.
func (m *Meter) Listener(at netip.AddrPort) (Process, error) {
	return m.named("listener", func(sys system) (int, error) { return sys.listener(netip.AddrPortFrom(at.Addr().Unmap(), at.Port())) })
}

// Variable returns a variable of the environment with which a process began; empty where it has none of this name. The
// system shows it to the process's own user and to root only.
func (m *Meter) Variable(p Process, name string) (string, error) {
	sys := openSystem(m.procfs)
	if s, err := sys.stat(p.PID); err != nil || s.start != p.Start {
		return "", fmt.Errorf("process %d: %w", p.PID, fs.ErrNotExist)
	}
	environment, err := sys.environment(p.PID)
	if err != nil {
		return "", fmt.Errorf("read the environment of process %d: %w", p.PID, err)
	}
	return variableOf(environment, name), nil
}

// File returns the path at which we see a file that a process, maybe in a container, sees at path.
func (m *Meter) File(p Process, path string) string {
	if runtime.GOOS != "linux" {
		return path
	}
	return filepath.Join(m.procfs, strconv.Itoa(p.PID), "root", path)
}

// listener is system's.
func (fs *procfs) listener(at netip.AddrPort) (int, error) {
	inode, err := fs.listening(at)
	if err != nil {
		return 0, err
	}
	return fs.holder(inode)
}

// listening returns the inode of the socket that accepts connections at an address: one that is bound to it, else one
// that is bound to all addresses.
func (fs *procfs) listening(at netip.AddrPort) (uint64, error) {
	const listen = "0A" // TCP_LISTEN in the kernel's include/net/tcp_states.h
	best, inode := 0, uint64(0)
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := fs.read("net", name)
		if err != nil {
			if name == "tcp" {
				return 0, err
			}
			continue
		}
		ranks := map[string]int{hexAddr(netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port()), true): 1}
		if at.Addr().Is4() && name == "tcp" {
			ranks[hexAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), false)] = 2
		}
		if at.Addr().Is4() == (name == "tcp") {
			ranks[hexAddr(at, name == "tcp6")] = 3
		}
		for line := range bytes.Lines(b) {
			// number, local, remote, state, queues, timer, retransmits, uid, timeout, inode
			fields := bytes.Fields(line)
			if len(fields) < 10 || string(fields[3]) != listen {
				continue
			}
			rank := ranks[string(fields[1])]
			if n, ok := number(fields[9]); ok && n > 0 && rank > best {
				best, inode = rank, uint64(n)
			}
		}
	}
	if best == 0 {
		return 0, ErrNoPeer
	}
	return inode, nil
}
