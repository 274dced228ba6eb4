package meter

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// drmClients follows who uses the cards of a driver. Processes of other users are seen by root only: where they are
// not, their part of a card's energy falls to those that are.
type drmClients struct {
	fs      procfs
	driver  string
	clients map[drmClientID]drmClient // of the reading before
	holders map[int]bool              // processes that had a card open at the last look
	looked  map[int]bool              // processes that the reading before looked at
	count   int                       // readings so far
}

// drmClient is one use of a card: a file that was opened once, however many processes share it since.
type drmClient struct {
	pid     int
	engines map[string]drmEngine
	busy    float64 // share of the interval for which the card's engines worked for it
	memory  uint64  // bytes on the card
}

// drmLookAround is how many readings pass between two looks at all processes of the machine; those of the runs, and
// those that have a card open, are looked at each time.
const drmLookAround = 10

func newDRMClients(root, driver string) drmClients {
	return drmClients{fs: procfs{root: root}, driver: driver}
}

// read returns the processes that use each card, by the card's address, sorted by pid.
func (c *drmClients) read(load Load) map[string][]GPUProcess {
	clients, holders, looked, computes := map[drmClientID]drmClient{}, map[int]bool{}, map[int]bool{}, map[int]bool{}
	for _, pid := range c.pids(load.Tracked) {
		fds, compute, ok := c.open(pid)
		if !ok {
			continue
		}
		looked[pid], computes[pid] = true, compute
		for _, fd := range fds {
			holders[pid] = true
			b, err := c.fs.read(strconv.Itoa(pid), "fdinfo", fd)
			if err != nil {
				continue // closed meanwhile
			}
			f, ok := parseFdinfo(b)
			if !ok || f.driver != c.driver {
				continue
			}
			client, counted := clients[f.client]
			if !counted {
				client = c.follow(f, pid, load)
			} else if c.clients[f.client].pid == pid { // it held the client before, and goes on to do so
				client.pid = pid
			}
			clients[f.client] = client
		}
	}
	c.clients, c.holders, c.looked = clients, holders, looked
	return drmHolders(clients, computes)
}

// pids lists the processes to look at, sorted: where a file is shared since a fork, the parent, mostly the smaller pid,
// is meant.
func (c *drmClients) pids(tracked []int) []int {
	pids := append(slices.Collect(maps.Keys(c.holders)), tracked...)
	if c.count%drmLookAround == 0 {
		if all, err := c.fs.pids(); err == nil {
			pids = all
		}
	}
	c.count++
	slices.Sort(pids)
	return slices.Compact(pids)
}

// follow brings a client up to date. What it did before it was first seen is not this interval's, unless its process
// was looked at a reading ago: then it was opened since. (It may have been handed on from another process, but no engine
// works for longer than the interval.)
func (c *drmClients) follow(f fdinfo, pid int, load Load) drmClient {
	client := drmClient{pid: pid, engines: f.engines, memory: f.memory}
	before, known := c.clients[f.client]
	for name, e := range before.engines {
		f.engines[name] = f.engines[name].catchUp(e)
	}
	for name, e := range f.engines {
		switch {
		case known:
			client.busy += e.since(before.engines[name], load.Elapsed)
		case c.looked[pid] && e.total == 0: // an engine's own cycles count from long before
			client.busy += min(1, e.since(drmEngine{}, load.Elapsed))
		}
	}
	return client
}

// open lists a process's descriptors that are cards. compute says that it has /dev/kfd open, too; ok is false for a
// process that ended or is another user's.
func (c *drmClients) open(pid int) (fds []string, compute, ok bool) {
	dir := filepath.Join(c.fs.root, strconv.Itoa(pid), "fd")
	d, err := os.Open(dir)
	if err != nil {
		return nil, false, false
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, false, false
	}
	for _, name := range names {
		to, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if strings.HasPrefix(to, "/dev/dri/") {
			fds = append(fds, name)
		}
		compute = compute || to == "/dev/kfd"
	}
	return fds, compute, true
}

// drmHolders adds each process's clients up, by card. ROCm's processes hand their work to the card by /dev/kfd, past the
// engines' clocks (Umio-Yasuno/amdgpu_top issue 49), while their memory is counted: where one of them holds memory on a
// card, the time that its engines worked is known of the others only, and is left out for all.
func drmHolders(clients map[drmClientID]drmClient, computes map[int]bool) map[string][]GPUProcess {
	holders := map[string][]GPUProcess{}
	unclocked := map[string]bool{}
	for id, client := range clients {
		on := holders[id.device]
		i := slices.IndexFunc(on, func(p GPUProcess) bool { return p.PID == client.pid })
		if i < 0 {
			i, on = len(on), append(on, GPUProcess{PID: client.pid})
		}
		on[i].Busy += client.busy
		on[i].Memory += client.memory
		holders[id.device] = on
		if computes[client.pid] && client.memory > 0 {
			unclocked[id.device] = true
		}
	}
	for device, on := range holders {
		for i := range on {
			if unclocked[device] {
				on[i].Busy = 0
			}
		}
		slices.SortFunc(on, func(a, b GPUProcess) int { return cmp.Compare(a.PID, b.PID) })
	}
	return holders
}
