//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	rounds     = 3
	starts     = 5                // trainers started per tool
	calls      = 40               // runs opened and ended, through the proxy and directly
	work       = 4.0              // s of CPU time of a run beside neighbours
	together   = 8.0              // s of three runs at once
	idle       = 30.0             // s in which a sampler's own CPU time is read: two of CodeCarbon's intervals
	neighbours = 3                // at most
	disturbed  = 0.10             // of a thread: a trial beside which others used more is repeated
	patience   = 10 * time.Minute // in all, to wait for quiet moments and to repeat what was disturbed
)

// bench is a comparison under way. Its tools are always measured in turns or at once, so that what else goes on meets all
// of them.
type bench struct {
	t        *testing.T
	server   *url.URL
	proxy    proxy
	tools    []string // as trainers name what meters them
	others   float64  // most that other processes used of a thread beside an accepted trial
	repeated int
	until    time.Time // the end of patience
	methods  []string
}

// TestAgainstCodeCarbon measures both tools and writes codecarbon.md and neighbours.svg. It takes about ten minutes of
// an otherwise quiet machine and checks no figure: they are for people to read.
func TestAgainstCodeCarbon(t *testing.T) {
	if os.Getenv("E2E_CODECARBON") == "" {
		t.Skip("E2E_CODECARBON=1 compares the program with CodeCarbon, with -timeout 1h: it takes a quarter of an hour")
	}
	b := &bench{t: t, server: startServer(t), until: time.Now().Add(patience)}
	b.proxy = startProxy(t, b.server)
	b.tools = []string{"machine", "process", b.proxy.url.String()}
	load := loadAverage(t)

	rows := b.start()
	rows = append(rows, b.sampler()...)
	beside := b.neighbours()
	rows = append(rows, beside.rows...)
	rows = append(rows, b.together()...)

	write(t, "codecarbon.md", b.report(rows, load))
	write(t, "neighbours.svg", chart("A run's CPU energy beside busy neighbours",
		fmt.Sprintf("The same %g s of CPU time on %d threads; %d rounds, with lines through their medians", work, runtime.NumCPU(), rounds),
		[]series{
			{name: "CodeCarbon (default)", rounds: beside.energy[0], colour: "#d55e00", shape: circle},
			{name: "CodeCarbon, process", rounds: beside.energy[1], colour: "#cc79a7", dash: "9 5", shape: square},
			{name: "mlflow-emissions-proxy", rounds: beside.energy[2], colour: "#0072b2", dash: "2 4", shape: triangle},
		}))
}

// row is a line of the table: the values of all rounds per tool.
type row struct {
	what, unit string
	by         [3][]float64 // CodeCarbon, CodeCarbon in process mode, ours; nil where the question is not the tool's
}

// start measures what a trainer waits for, and what memory it holds afterwards.
func (b *bench) start() []row {
	imported := row{what: "import", unit: "ms"}
	started := row{what: "a run's start: `EmissionsTracker()` and `start()`; `runs/create` through the proxy less directly", unit: "ms"}
	stopped := row{what: "a run's end: `stop()`; `runs/update` through the proxy less directly", unit: "ms"}
	cpu := row{what: "CPU time of import and start in the trainer", unit: "ms"}
	memory := row{what: "memory added: to the trainer; the proxy, once per machine", unit: "MiB"}
	loaded := row{what: "the same, where the trainer has numpy and pandas loaded", unit: "MiB"}
	for range starts {
		b.waitForQuiet()
		for _, modules := range [][]string{nil, {"numpy", "pandas"}} {
			into := &memory
			if modules != nil {
				into = &loaded
			}
			without := startTrainer(b.t, "nothing", modules...)
			floor := resident(b.t, without.cmd.Process.Pid)
			without.stop()
			for i, tool := range b.tools[:2] {
				tr := startTrainer(b.t, tool, modules...)
				into.by[i] = append(into.by[i], resident(b.t, tr.cmd.Process.Pid)-floor)
				end := tr.stop()
				if modules == nil {
					imported.by[i] = append(imported.by[i], 1000*tr.started.ImportS)
					started.by[i] = append(started.by[i], 1000*tr.started.StartS)
					stopped.by[i] = append(stopped.by[i], 1000*end.StopS)
					cpu.by[i] = append(cpu.by[i], 1000*tr.started.CPUS)
				}
			}
		}
	}
	b.waitForQuiet()
	for range calls {
		directCreate, directEnd := b.call(b.server)
		create, end := b.call(b.proxy.url)
		started.by[2] = append(started.by[2], 1000*(create-directCreate).Seconds())
		stopped.by[2] = append(stopped.by[2], 1000*(end-directEnd).Seconds())
	}
	tr := startTrainer(b.t, b.tools[2])
	for range starts {
		tr.do("sleep", 1)
		memory.by[2] = append(memory.by[2], resident(b.t, b.proxy.pid))
	}
	loaded.by[2] = memory.by[2]
	tr.stop()
	return []row{imported, started, cpu, stopped, memory, loaded}
}

// call opens a run and ends it, each over a connection of its own as a trainer's first call is.
func (b *bench) call(base *url.URL) (create, end time.Duration) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(path string, body, answer any) time.Duration {
		encoded, err := json.Marshal(body)
		require.NoError(b.t, err)
		began := time.Now()
		res, err := client.Post(base.JoinPath("api/2.0/mlflow/runs", path).String(), "application/json", bytes.NewReader(encoded))
		require.NoError(b.t, err)
		defer res.Body.Close()
		require.Equal(b.t, http.StatusOK, res.StatusCode)
		require.NoError(b.t, json.NewDecoder(res.Body).Decode(answer))
		return time.Since(began)
	}
	var opened struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			}
		}
	}
	create = post("create", map[string]any{"experiment_id": "0", "start_time": time.Now().UnixMilli()}, &opened)
	end = post("update", map[string]any{"run_id": opened.Run.Info.ID, "status": "FINISHED", "end_time": time.Now().UnixMilli()}, &struct{}{})
	return create, end
}

// sampler measures what metering costs while nothing else happens, of all tools in the same seconds.
func (b *bench) sampler() []row {
	r := row{what: "CPU time of the sampler while one run sleeps, of a thread", unit: "%"}
	for range rounds {
		var runs []*trainer
		var pids []int
		for _, tool := range b.tools {
			tr := startTrainer(b.t, tool)
			runs, pids = append(runs, tr), append(pids, tr.cmd.Process.Pid)
		}
		pids[2] = b.proxy.pid
		var used [3]time.Duration
		began := time.Now()
		for i, tr := range runs {
			used[i] = cpuTime(b.t, pids[i])
			tr.tell("sleep", idle)
		}
		for i, tr := range runs {
			tr.hear()
			r.by[i] = append(r.by[i], 100*(cpuTime(b.t, pids[i])-used[i]).Seconds()/time.Since(began).Seconds())
		}
		for _, tr := range runs {
			tr.stop()
		}
	}
	return []row{r}
}

// claim is what a tool says that a run used.
type claim struct{ cpu, ram, watts float64 } // J, J, W of RAM

// finish ends a trainer's run and returns what is claimed for it.
func (b *bench) finish(tr *trainer) claim {
	end := tr.stop()
	if tr.started.Run == "" {
		b.method("CodeCarbon: " + end.Method)
		return claim{end.CPUJ, end.RAMJ, end.RAMW}
	}
	r := readRun(b.t, b.server, tr.started.Run)
	require.Equal(b.t, "measured", r.Tags["emissions.status"])
	b.method(fmt.Sprintf("ours: CPU %s, RAM %s", r.Tags["emissions.method.cpu"], r.Tags["emissions.method.ram"]))
	ram := 3.6e6 * r.Metrics["emissions/ram_energy_kwh"].Value
	return claim{3.6e6 * r.Metrics["emissions/cpu_energy_kwh"].Value, ram, ram / r.Metrics["emissions/duration_s"].Value}
}

func (b *bench) method(m string) {
	if !slices.Contains(b.methods, m) {
		b.methods = append(b.methods, m)
	}
}

// quietly repeats a trial until other processes did not disturb it. A trial calls watch when the part begins that
// counts, with the processes that are meant to be busy, and returns what ends them.
func (b *bench) quietly(trial func(watch func(pids ...int)) (end func())) {
	for {
		b.waitForQuiet()
		var began time.Time
		var others time.Duration
		var watched []int
		end := trial(func(pids ...int) {
			began, others, watched = time.Now(), -busy(b.t), pids
			for _, pid := range watched {
				others += cpuTime(b.t, pid)
			}
		})
		others += busy(b.t)
		for _, pid := range watched {
			others -= cpuTime(b.t, pid)
		}
		share := max(0, others.Seconds()/time.Since(began).Seconds())
		end()
		if share <= disturbed || !time.Now().Before(b.until) {
			b.others = max(b.others, share)
			return
		}
		b.repeated++
	}
}

// waitForQuiet waits for a second in which the machine is idle, while there is patience.
func (b *bench) waitForQuiet() {
	for time.Now().Before(b.until) {
		before := busy(b.t)
		time.Sleep(time.Second)
		if busy(b.t)-before < time.Second/10 {
			return
		}
	}
}

// besides is what neighbours do to a run.
type besides struct {
	rows   []row
	energy [3][][]float64 // J by tool, number of neighbours, round
}

// neighbours measures the same work beside none to three busy processes.
func (b *bench) neighbours() besides {
	r := besides{}
	watts := row{what: "RAM power claimed for one run", unit: "W"}
	for i := range b.tools {
		r.energy[i] = make([][]float64, neighbours+1)
	}
	for range rounds {
		for n := range neighbours + 1 {
			for i, tool := range b.tools {
				var c claim
				b.quietly(func(watch func(...int)) func() {
					var pids []int
					var stops []func()
					for range n {
						pid, stop := startNeighbour(b.t)
						pids, stops = append(pids, pid), append(stops, stop)
					}
					tr := startTrainer(b.t, tool)
					watch(append(pids, tr.cmd.Process.Pid)...)
					tr.do("burn", work)
					return func() {
						c = b.finish(tr)
						for _, stop := range stops {
							stop()
						}
					}
				})
				b.t.Logf("%s beside %d: %.2f J", tool, n, c.cpu)
				r.energy[i][n] = append(r.energy[i][n], c.cpu)
				if n == 0 {
					watts.by[i] = append(watts.by[i], c.watts)
				}
			}
		}
	}
	alone := row{what: fmt.Sprintf("CPU energy of a run of %g s of CPU time, alone", work), unit: "J"}
	for i := range b.tools {
		alone.by[i] = r.energy[i][0]
	}
	r.rows = []row{watts, alone}
	for n := 1; n <= neighbours; n++ {
		times := row{what: fmt.Sprintf("the same beside %d busy neighbours, by its energy alone", n)}
		if n == 1 {
			times.what = "the same beside one busy neighbour, by its energy alone"
		}
		for i := range b.tools {
			for round, beside := range r.energy[i][n] {
				times.by[i] = append(times.by[i], beside/r.energy[i][0][round])
			}
		}
		r.rows = append(r.rows, times)
	}
	return r
}

// together measures three runs at once against what the machine is said to have used in the same time: by a tracker in
// a process that sleeps, and by the proxy's own sensors. All begin at the same moment, or those that begin first would
// claim more.
func (b *bench) together() []row {
	r := row{what: "three runs at once: their CPU energy by the machine's"}
	for range rounds {
		for i, tool := range b.tools {
			var claimed, machine float64
			b.quietly(func(watch func(...int)) func() {
				metered := []string{tool, tool, tool}
				if i < 2 {
					metered = append(metered, "machine")
				}
				var all []*trainer
				var pids []int
				for _, by := range metered {
					tr := launchTrainer(b.t, by)
					all, pids = append(all, tr), append(pids, tr.cmd.Process.Pid)
				}
				for _, tr := range all {
					tr.started = tr.hear()
				}
				before := b.proxy.cpuReading(b.t)
				watch(pids...)
				for n, tr := range all {
					tr.tell([]string{"spin", "spin", "spin", "sleep"}[n], together)
				}
				for _, tr := range all {
					tr.hear()
				}
				return func() {
					claimed = 0
					for _, tr := range all[:3] {
						claimed += b.finish(tr).cpu
					}
					machine = b.proxy.cpuReading(b.t) - before
					if i < 2 {
						machine = b.finish(all[3]).cpu
					}
				}
			})
			b.t.Logf("three by %s: %.2f J of %.2f J", tool, claimed, machine)
			r.by[i] = append(r.by[i], claimed/machine)
		}
	}
	return []row{r}
}
