package meter

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/net"
	osprocess "github.com/shirou/gopsutil/v3/process"
)

// portable asks the operating system by gopsutil, where there is no /proc.
type portable struct{}

// listings stands for the fork counter that other systems do not have: each listing may have found something new.
var listings atomic.Uint64

// machine is system's.
func (portable) machine() (busy time.Duration, forks uint64, err error) {
	times, err := cpu.Times(false)
	if err != nil {
		return 0, 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	for _, t := range times {
		busy += seconds(t.User + t.System + t.Nice + t.Irq + t.Softirq)
	}
	return busy, listings.Add(reuseAfter / 50), nil // some systems use a pid again at once: list all anew now and then
}

// bootID is system's.
func (portable) bootID() string {
	began, err := host.BootTime()
	if err != nil {
		return ""
	}
	return fmt.Sprint(began)
}

// began is system's: milliseconds since 1970, as bootTime counts here.
func (portable) began(start uint64) time.Duration { return time.Duration(start) * time.Millisecond }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// memoryUsed is system's.
func (portable) memoryUsed() (uint64, error) { return memoryUsed(context.Background()) }

// pids is system's.
func (portable) pids() ([]int, error) {
	found, err := osprocess.Pids()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int, 0, len(found))
	for _, pid := range found {
		if pid > 0 {
			pids = append(pids, int(pid))
		}
	}
	return pids, nil
}

// stat is system's. These systems do not tell the time of children that ended: one that came and went between two
// readings is lost.
func (portable) stat(pid int) (stat, error) {
	p, err := osprocess.NewProcess(int32(pid))
	if err != nil {
		return stat{}, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	parent, err := p.Ppid()
	if err != nil {
		return stat{}, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	s := stat{pid: pid, parent: int(parent)}
	if ms, err := p.CreateTime(); err == nil {
		s.start = uint64(ms)
		// Windows keeps the number of a parent that ended, which another process may have by now: a younger one.
		if above, err := osprocess.NewProcess(parent); err == nil {
			if of, err := above.CreateTime(); err == nil && of > ms {
				s.parent = 0
			}
		}
	}
	// Another user's process may hide the rest.
	if t, err := p.Times(); err == nil {
		s.own = seconds(t.User + t.System)
	}
	if m, err := p.MemoryInfo(); err == nil {
		s.memory = m.RSS
	}
	return s, nil
}

// proportional is system's.
func (portable) proportional(int) (uint64, error) { return 0, ErrNoData }

// arguments is system's.
func (portable) arguments(pid int) []string {
	p, err := osprocess.NewProcess(int32(pid))
	if err != nil {
		return nil
	}
	args, err := p.CmdlineSlice()
	if err != nil {
		return nil
	}
	return args
}

// environment is system's.
func (portable) environment(pid int) ([]string, error) {
	p, err := osprocess.NewProcess(int32(pid))
	if err != nil {
		return nil, err
	}
	return p.Environ()
}

// cgroup is system's.
func (portable) cgroup(int) string { return "" }

// peer is system's.
func (portable) peer(local, remote netip.AddrPort) (int, error) {
	conns, err := net.Connections("tcp")
	if err != nil {
		return 0, fmt.Errorf("list connections: %w", err)
	}
	is := func(a net.Addr, b netip.AddrPort) bool {
		ip, err := netip.ParseAddr(a.IP)
		return err == nil && a.Port == uint32(b.Port()) && ip.Unmap() == b.Addr().Unmap()
	}
	for _, c := range conns {
		if c.Pid > 0 && is(c.Laddr, remote) && is(c.Raddr, local) {
			return int(c.Pid), nil
		}
	}
	return 0, ErrNoPeer
}

// listener is system's.
func (portable) listener(at netip.AddrPort) (int, error) {
	conns, err := net.Connections("tcp")
	if err != nil {
		return 0, fmt.Errorf("list connections: %w", err)
	}
	for _, c := range conns {
		ip, err := netip.ParseAddr(c.Laddr.IP)
		if err == nil && c.Status == "LISTEN" && c.Pid > 0 && c.Laddr.Port == uint32(at.Port()) && (ip.IsUnspecified() || ip.Unmap() == at.Addr()) {
			return int(c.Pid), nil
		}
	}
	return 0, ErrNoPeer
}
