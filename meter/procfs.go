package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/mem"
)

// tick is the unit of times in /proc: USER_HZ is 100 on every architecture that Linux runs on today (proc(5)).
const tick = 10 * time.Millisecond

// procfs reads the few files of /proc that metering needs. The root is /proc, the host's /proc mounted into a
// container, or a tree that a test made. It is used by one goroutine at a time: the buffer is kept between reads.
type procfs struct {
	root string
	env  context.Context // tells gopsutil where /proc is
	buf  []byte
}

// newProcfs reads the /proc under root.
func newProcfs(root string) *procfs {
	return &procfs{root: root, env: context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: root})}
}

// read returns a file's content, valid until the next read.
func (fs *procfs) read(elem ...string) ([]byte, error) {
	f, err := openFile(fs.root + "/" + strings.Join(elem, "/"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fs.buf = fs.buf[:cap(fs.buf)]
	if len(fs.buf) == 0 {
		fs.buf = make([]byte, 4096)
	}
	for n := 0; ; {
		if n == len(fs.buf) {
			fs.buf = append(fs.buf, make([]byte, len(fs.buf))...)
		}
		k, err := f.Read(fs.buf[n:])
		n += k
		if errors.Is(err, io.EOF) {
			return fs.buf[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// stat reads one process. A process that is gone is an error that wraps fs.ErrNotExist or ESRCH.
func (fs *procfs) stat(pid int) (stat, error) {
	b, err := fs.read(strconv.Itoa(pid), "stat")
	if err != nil {
		return stat{}, err
	}
	s, err := parseStat(b)
	if err != nil {
		return stat{}, fmt.Errorf("read %s/%d/stat: %w", fs.root, pid, err)
	}
	if own, ok := fs.clock(pid); ok && own >= s.own {
		s.own = own
	}
	return s, nil
}

// clock is the process's CPU time to the nanosecond, where the kernel can be asked: ten predictions last less than
// a tick. Only the real /proc shows pids that the kernel knows by the same number in our namespace.
func (fs *procfs) clock(pid int) (time.Duration, bool) {
	if fs.root != "/proc" {
		return 0, false
	}
	return processClock(pid)
}

// parseStat parses a line of proc_pid_stat(5). The command, in parentheses, may itself hold spaces and ")", so
// fields are counted from the last ")".
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return stat{}, errors.New("no command in parentheses")
	}
	pid, ok := number(bytes.TrimSpace(b[:open]))
	if !ok {
		return stat{}, errors.New("no pid")
	}
	// Numbers are those of the manual page, in which the state is field 3.
	var v [25]int64
	var state []byte
	rest := b[end+1:]
	for i := 3; i <= 24; i++ {
		rest = bytes.TrimLeft(rest, " \n")
		word := rest
		if n := bytes.IndexAny(rest, " \n"); n >= 0 {
			word, rest = rest[:n], rest[n:]
		} else {
			rest = nil
		}
		if i == 3 { // a letter
			state = word
			continue
		}
		if v[i], ok = number(word); !ok {
			return stat{}, fmt.Errorf("field %d is not a number", i)
		}
	}
	s := stat{
		pid: int(pid), parent: int(v[4]), leaders: [2]int{int(v[5]), int(v[6])}, tty: int(v[7]), start: uint64(v[22]),
		zombie:   string(state) == "Z" && v[20] <= 1, // else only its first thread ended
		own:      ticks(v[14]) + ticks(v[15]),
		children: ticks(v[16]) + ticks(v[17]),
	}
	if v[24] > 0 && v[24] < 1<<62/int64(os.Getpagesize()) {
		s.memory = uint64(v[24]) * uint64(os.Getpagesize())
	}
	return s, nil
}

// ticks converts a counter of USER_HZ ticks; one that would overflow, or is negative, is taken as none.
func ticks(n int64) time.Duration {
	if n < 0 || n > int64(1<<62)/int64(tick) {
		return 0
	}
	return time.Duration(n) * tick
}

// number parses a decimal integer without allocating. Values beyond int64 (rsslim) are cut to its maximum.
func number(b []byte) (int64, bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (1<<63-1-9)/10 {
			return 1<<63 - 1, true
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// machine reads /proc/stat: the CPU time that was used since boot, summed over the CPUs, and the number of
// processes and threads ever made. Time stolen by other virtual machines and time spent idle or waiting for a disk
// are not ours; guest time is inside user time already.
func (fs *procfs) machine() (busy time.Duration, forks uint64, err error) {
	b, err := fs.read("stat")
	if err != nil {
		return 0, 0, err
	}
	found := false
	for len(b) > 0 {
		line := b
		if n := bytes.IndexByte(b, '\n'); n >= 0 {
			line, b = b[:n], b[n+1:]
		} else {
			b = nil
		}
		switch {
		case bytes.HasPrefix(line, []byte("cpu ")):
			for i, word := range bytes.Fields(line)[1:] {
				const idle, iowait, steal = 3, 4, 7
				if i == idle || i == iowait {
					continue
				}
				if i == steal {
					break
				}
				n, ok := number(word)
				if !ok {
					return 0, 0, fmt.Errorf("read %s/stat: %q is not a number", fs.root, word)
				}
				if busy += ticks(n); busy < 0 {
					return 0, 0, fmt.Errorf("read %s/stat: %q is too large", fs.root, word)
				}
			}
			found = true
		case bytes.HasPrefix(line, []byte("processes ")):
			if n, ok := number(bytes.TrimSpace(line[len("processes "):])); ok {
				forks = uint64(n)
			}
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("read %s/stat: no cpu line", fs.root)
	}
	return busy, forks, nil
}

// bootID is system's (random(4)).
func (fs *procfs) bootID() string {
	b, _ := fs.read("sys", "kernel", "random", "boot_id")
	return string(bytes.TrimSpace(b))
}

// began is system's.
func (fs *procfs) began(start uint64) time.Duration { return ticks(int64(start)) }

// pids lists the processes.
func (fs *procfs) pids() ([]int, error) {
	d, err := os.Open(fs.root)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", fs.root, err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// proportional is system's: PSS of proc_pid_smaps_rollup(5), for which the kernel walks all pages.
func (fs *procfs) proportional(pid int) (uint64, error) {
	b, err := fs.read(strconv.Itoa(pid), "smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if words := bytes.Fields(line); len(words) == 3 && string(words[0]) == "Pss:" {
			if kB, ok := number(words[1]); ok && kB > 0 && kB < 1<<50 {
				return uint64(kB) << 10, nil
			}
		}
	}
	return 0, fmt.Errorf("read %s/%d/smaps_rollup: no Pss", fs.root, pid)
}

// arguments is system's.
func (fs *procfs) arguments(pid int) []string {
	args, _ := fs.words(pid, "cmdline")
	return args
}

// environment is system's. The kernel shows it to the process's own user and to root only.
func (fs *procfs) environment(pid int) ([]string, error) { return fs.words(pid, "environ") }

// words reads a file of strings that end in zeros; nil for an empty one, as a kernel thread's is.
func (fs *procfs) words(pid int, file string) ([]string, error) {
	b, err := fs.read(strconv.Itoa(pid), file)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(string(b), "\x00"), nil
}

// cgroup is system's. Version 1 has a hierarchy for each controller, some of which the process may be at the top of:
// the deepest one tells the most (cgroups(7)).
func (fs *procfs) cgroup(pid int) string {
	b, err := fs.read(strconv.Itoa(pid), "cgroup")
	if err != nil {
		return ""
	}
	deepest := ""
	for line := range bytes.Lines(b) {
		if parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3); len(parts) == 3 && len(parts[2]) > len(deepest) {
			deepest = parts[2]
		}
	}
	return deepest
}

// memoryUsed is system's.
func (fs *procfs) memoryUsed() (uint64, error) { return memoryUsed(fs.env) }

// memoryUsed returns the bytes in use: all that could not be had for something new.
func memoryUsed(ctx context.Context) (uint64, error) {
	v, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the memory in use: %w", err)
	}
	if v.Available >= v.Total {
		return 0, fmt.Errorf("read the memory in use: %d bytes of %d are said to be available", v.Available, v.Total)
	}
	return v.Total - v.Available, nil
}
