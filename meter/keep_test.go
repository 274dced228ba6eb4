package meter

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kill is what is left of a meter whose program ended without a word: what was kept last, as a file has it.
func kill(t require.TestingT, m *Meter) Kept {
	b, err := json.Marshal(m.Keep())
	require.NoError(t, err)
	var k Kept
	require.NoError(t, json.Unmarshal(b, &k))
	return k
}

// restart goes on with a new meter after the time that down takes.
func (m *machine) restart(down func()) map[string]*Session {
	m.t.Helper()
	kept := kill(m.t, m.meter)
	down()
	m.meter = m.open()
	sessions, err := m.meter.Resume(kept)
	require.NoError(m.t, err)
	return sessions
}

// A run goes on after a restart as if it had not been: the same work has the same energy, time and phases, to the joule,
// also that of children that came and went meanwhile.
func TestARestartLosesNothing(t *testing.T) {
	t.Parallel()
	var records []Record
	for _, restarted := range []bool{false, true} {
		m := newMachine(t)
		run := m.begin("run", "", m.fork(100, 50, "python", "train.py"))
		nested := m.begin("nested", "run", m.fork(101, 100, "python", "fold.py"))
		other := m.begin("other", "", m.fork(200, 50, "python", "other.py"))
		for range 3 {
			m.run(100, 50)
			m.run(101, 10)
			m.run(200, 30)
			m.sleep()
		}
		nested.Switch(Inference)
		work := func() {
			m.run(100, 300)
			m.fork(102, 100, "worker")
			m.run(102, 70)
			m.exit(102)
			m.fork(103, 100, "worker")
			m.run(103, 40)
			m.run(200, 100)
			m.now = m.now.Add(8 * time.Second)
		}
		if restarted {
			sessions := m.restart(work)
			run, nested, other = sessions["run"], sessions["nested"], sessions["other"]
		} else {
			work()
			m.meter.Sample()
		}
		for range 2 {
			m.run(100, 5)
			m.run(103, 20)
			m.sleep()
		}
		nested.Close()
		m.sleep()
		m.conserved(run, other)
		for _, s := range []*Session{run, nested, other} {
			records = append(records, s.Record())
		}
	}
	for i, undisturbed := range records[:3] {
		restarted := records[3+i]
		require.InDelta(t, undisturbed.Energy()[CPU].Joules(), restarted.Energy()[CPU].Joules(), 1e-9*undisturbed.Energy()[CPU].Joules(), i)
		require.Equal(t, undisturbed.Duration(), restarted.Duration())
		require.Equal(t, undisturbed.Gaps, restarted.Gaps)
		require.Len(t, restarted.Segments, len(undisturbed.Segments))
		for j, g := range restarted.Segments {
			require.Equal(t, undisturbed.Segments[j].Phase, g.Phase)
			require.Equal(t, undisturbed.Segments[j].Duration(), g.Duration())
		}
	}
	require.Zero(t, records[3].Gaps, "not one is partial")
}

// Memory, and who used a GPU, are known at both ends of a long time only, and the record says so; the CPU's counter went
// on.
func TestALongDowntimeIsPartialWhereNothingCounts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.gpu.readings = []GPUReading{{Device: "a", Energy: 10, Processes: []GPUProcess{{PID: 100, Busy: 1}, {PID: 200, Busy: 1}}}}
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.fork(200, 50, "neighbour")
	m.run(100, 100)
	m.sleep()
	s := m.restart(func() {
		m.run(100, 5000)
		m.now = m.now.Add(time.Minute)
	})["run"]
	r := s.Record()
	assert.Zero(t, r.Gaps[CPU])
	assert.Equal(t, time.Minute, r.Gaps[RAM].For)
	assert.Contains(t, r.Gaps[RAM].Why, "no reading for 60 s, in which the proxy was restarted: of the memory in use only both ends are known")
	assert.Equal(t, time.Minute, r.Gaps[GPU].For)
	assert.Contains(t, r.Gaps[GPU].Why, "who used the GPU is not known")
	assert.InDelta(t, (20*61 + 30*51), r.Energy()[CPU].Joules(), 1e-9, "it was alone")

	m.gpu.readings[0].Processes = m.gpu.readings[0].Processes[:1]
	s = m.restart(func() { m.now = m.now.Add(time.Minute) })["run"]
	assert.Equal(t, time.Minute, s.Record().Gaps[GPU].For, "one tree alone on the GPU has it all")
}

// Memory that grew meanwhile is taken at the mean of both ends, the run's and the machine's alike.
func TestMemoryOverADowntime(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.meter.ram = newRAMModel()
	meminfo := func(used int) {
		m.write("meminfo", fmt.Sprintf("MemTotal: 64000000 kB\nMemFree: %d kB\nMemAvailable: %d kB\nBuffers: 0 kB\nCached: 0 kB\n", 64000000-used, 64000000-used))
	}
	meminfo(4 << 20)
	m.procs[100].pages = 1 << 30 / os.Getpagesize()
	m.flush()
	m.sleep()
	before := kill(t, m.meter)
	m.now = m.now.Add(10 * time.Second)
	meminfo(6 << 20)
	m.procs[100].pages = 3 << 30 / os.Getpagesize()
	m.flush()
	m.meter = m.open()
	m.meter.ram = newRAMModel()
	sessions, err := m.meter.Resume(before)
	require.NoError(t, err)
	r := sessions["run"].Record()
	had := before.Sessions[0].Record.Energy()[RAM]
	assert.InDelta(t, 2*0.392*10, (r.Energy()[RAM] - had).Joules(), 1e-6, "2 GiB for 10 s")
}

// What a process used until it ended is known from who waited for it. Where that was no process of the run's, the record
// says for how long nothing is known; where a script stands in, nothing is lost.
func TestAProcessEndsWhileTheProxyIsDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		parent []string
		energy float64
		gap    time.Duration
		alive  bool
	}{
		{"a script waited for it", []string{"sh", "train.sh"}, 20*5 + 30*4, 0, true},
		{"a login shell waited for it", []string{"-bash"}, 0, 5 * time.Second, false},
	} {
		m := newMachine(t)
		m.fork(60, 50, c.parent...)
		s := m.begin("run", "", m.fork(100, 60, "python", "train.py"))
		m.sleep()
		require.True(t, s.Alive())
		before := cpuOf(s)
		s = m.restart(func() {
			m.run(100, 400)
			m.exit(100)
			m.now = m.now.Add(5 * time.Second)
		})["run"]
		r := s.Record()
		assert.Equal(t, c.gap, r.Gaps[CPU].For, c.name)
		if c.gap > 0 {
			assert.Contains(t, r.Gaps[CPU].Why, "a process of it ended, and what it used until then is not known")
		}
		assert.InDelta(t, before+c.energy, cpuOf(s), 1e-9, c.name)
		assert.Equal(t, c.alive, s.Alive(), c.name)
		m.conserved(s)
	}
}

// After another boot nothing goes on: the sessions are over, with what they had.
func TestAnotherBootEndsSessions(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"00000000-0000-0000-0000-000000000000\n", ""} {
		m := newMachine(t)
		was := m.begin("run", "", m.fork(100, 50, "python", "train.py"))
		m.run(100, 50)
		m.sleep()
		before := was.Record()
		kept := kill(t, m.meter)
		m.write("sys/kernel/random/boot_id", id)
		m.now = m.now.Add(time.Hour)
		m.meter = m.open()
		sessions, err := m.meter.Resume(kept)
		require.ErrorIs(t, err, ErrOtherBoot)
		s := sessions["run"]
		assert.False(t, s.Alive())
		assert.Equal(t, before.Energy(), s.Record().Energy())
		assert.Equal(t, before.Duration(), s.Record().Duration())
		s.Join(Process{PID: 100, Start: 1})
		s.Close()
		m.sleep()
		m.conserved()
		assert.Zero(t, m.meter.Totals().Runs)
	}
}

// The clock on the wall was set back by an hour, before or while the proxy was down: no time is counted by it.
func TestTheWallClockIsSetBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	began := m.now
	m.meter.boot = func() time.Duration { return 1000*time.Second + m.now.Sub(began) }
	m.meter.awake = m.meter.boot
	m.meter.lastBoot = m.meter.boot()
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	for range 3 {
		m.run(100, 10)
		m.sleep()
	}
	kept := kill(t, m.meter)
	kept.At = kept.At.Add(-time.Hour) // as if the clock had been an hour behind then
	for i := range kept.Sessions {
		kept.Sessions[i].Record = kept.Sessions[i].Record.moved(func(t time.Time) time.Time { return t.Add(-time.Hour) })
	}
	m.run(100, 20)
	m.now = m.now.Add(2 * time.Second)
	boot := m.meter.boot
	m.meter = m.open()
	m.meter.boot, m.meter.awake = boot, boot
	sessions, err := m.meter.Resume(kept)
	require.NoError(t, err)
	s := sessions["run"]
	r := s.Record()
	assert.Equal(t, 5*time.Second, r.Duration())
	assert.Equal(t, began, r.Segments[0].Start, "by the clock as it is now")
	assert.InDelta(t, 20*5+30*0.5, cpuOf(s), 1e-9)
}

// A time for which the machine was suspended is no run's, also where the proxy was down.
func TestTheMachineIsSuspendedWhileTheProxyIsDown(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.sleep()
	kept := kill(t, m.meter)
	m.now = m.now.Add(2 * time.Second)
	m.meter = m.open()
	m.meter.boot = func() time.Duration { return m.now.Sub(m.since) + time.Hour }
	sessions, err := m.meter.Resume(kept)
	require.NoError(t, err)
	r := sessions["run"].Record()
	assert.Equal(t, time.Hour, r.Asleep)
	assert.Equal(t, 3*time.Second, r.Duration())
	assert.Contains(t, r.Gaps[CPU].Why, "suspended for 3600 s")
}

// RAPL's counters go on by themselves: the first reading has all that they counted, across a wrap, unless they may have
// wrapped more often than can be told.
func TestRAPLGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		last, now  uint64
		down       time.Duration
		kept       bool
		want       Energy
		wantErrors string
	}{
		{"on", 1_000_000, 61_000_000, 20 * time.Second, true, 60, ""},
		{"wrapped", wrapAt - 1_000_000, 4_000_000, 20 * time.Second, true, 5, ""},
		{"too long", 1_000_000, 2_000_000, time.Hour, true, 0, "wrapped more often than can be told"},
		{"not kept", 1_000_000, 2_000_000, time.Second, false, 0, "it is back"},
	} {
		dir := t.TempDir()
		zone := filepath.Join(dir, "class", "powercap", "intel-rapl:0")
		require.NoError(t, os.MkdirAll(zone, 0o755))
		write := func(name, content string) {
			require.NoError(t, os.WriteFile(filepath.Join(zone, name), []byte(content), 0o644))
		}
		write("name", "package-0\n")
		write("max_energy_range_uj", fmt.Sprint(wrapAt))
		write("energy_uj", fmt.Sprint(c.last))
		packages, _, _ := openRAPL(dir)
		require.NotNil(t, packages)
		_, err := packages.Read(Load{})
		require.NoError(t, err)
		kept := map[string]uint64{}
		packages.(counting).keep(kept)
		if !c.kept {
			kept = nil
		}
		write("energy_uj", fmt.Sprint(c.now))
		packages, _, _ = openRAPL(dir)
		_, err = packages.Read(Load{})
		require.NoError(t, err)
		packages.(counting).resume(kept, c.down)
		e, err := packages.Read(Load{Elapsed: c.down, Gap: true})
		if c.wantErrors != "" {
			require.ErrorContains(t, err, c.wantErrors, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.InDelta(t, c.want.Joules(), e.Joules(), 1e-9, c.name)
	}
}

// A power is of a moment: it stands for a short interval as for any other, and for a long one nothing does. A card's
// counter goes on.
func TestPowersAndCardsAfterARestart(t *testing.T) {
	t.Parallel()
	set, wall, _ := acpiServer(t)
	set("100000000")
	_, err := wall.Read(0, Load{})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "energy1_input")
	write := func(microjoules string) { require.NoError(t, os.WriteFile(path, []byte(microjoules), 0o644)) }
	write("1000000")
	open := func() *drmSensor { return &drmSensor{devices: []*drmDevice{{dir: filepath.Dir(path), path: path}}} }
	for _, c := range []struct {
		down       time.Duration
		kept       bool
		wall, card string
	}{
		{3 * time.Second, true, "300 J", "60 J"},
		{3 * time.Second, false, "is back", "is back"},
		{time.Minute, true, "says nothing", "60 J"},
		{time.Hour, true, "says nothing", "may have wrapped"},
	} {
		kept := map[string]uint64{}
		card := open()
		card.devices[0].last, card.devices[0].state = 1_000_000, readCounting
		if c.kept {
			wall.(counting).keep(kept)
			card.keep(kept)
		}
		write("61000000")
		card = open()
		file, err := os.Open(path)
		require.NoError(t, err)
		card.devices[0].file = file
		card.resume(kept, c.down)
		wall.(counting).resume(kept, c.down)
		load := Load{Elapsed: c.down, Gap: c.down > 10*time.Second}
		said := func(e Energy, err error) string {
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%g J", e.Joules())
		}
		assert.Contains(t, said(wall.Read(0, load)), c.wall)
		assert.Contains(t, said(card.devices[0].read(load)), c.card)
	}
}

// A process that is there only by its number is another one: pids are used again.
func TestPIDsAreReusedWhileTheProxyIsDown(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.sleep()
	s := m.restart(func() {
		m.exit(100)
		m.now = m.now.Add(2 * time.Second)
		m.fork(100, 50, "stranger")
		m.run(100, 500)
	})["run"]
	had := cpuOf(s)
	m.run(100, 500)
	m.sleep()
	assert.False(t, s.Alive())
	assert.InDelta(t, had, cpuOf(s), 1e-9)
}

// Alive sees a nested run's processes, one that joined and one that stands in; a zombie is none.
func TestAlive(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	nested := m.begin("nested", "run", m.fork(101, 50, "python", "fold.py"))
	m.fork(102, 50, "python", "joins.py")
	s.Join(Process{PID: 102, Start: uint64(m.procs[102].start)})
	m.exit(100)
	assert.True(t, s.Alive())
	m.exit(102)
	assert.True(t, s.Alive(), "by the nested run")
	m.procs[101].zombie = true
	m.flush()
	assert.False(t, s.Alive())
	assert.False(t, nested.Alive())
	nested.Close()
	assert.False(t, nested.Alive())
	machine, err := m.meter.Begin("machine", "", ScopeMachine, Process{})
	require.NoError(t, err)
	assert.True(t, machine.Alive())
}

// Each time that a record has is moved with it: one that is forgotten would be of another clock.
func TestAllTimesOfARecordAreMoved(t *testing.T) {
	t.Parallel()
	var r Record
	var fill func(v reflect.Value)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var times func(v reflect.Value) []time.Time
	fill = func(v reflect.Value) {
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(at))
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i))
			}
		case v.Kind() == reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fallthrough
		case v.Kind() == reflect.Array:
			for i := range v.Len() {
				fill(v.Index(i))
			}
		}
	}
	times = func(v reflect.Value) (all []time.Time) {
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			return []time.Time{v.Interface().(time.Time)}
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				all = append(all, times(v.Field(i))...)
			}
		case v.Kind() == reflect.Slice, v.Kind() == reflect.Array:
			for i := range v.Len() {
				all = append(all, times(v.Index(i))...)
			}
		}
		return all
	}
	fill(reflect.ValueOf(&r).Elem())
	moved := r.moved(func(t time.Time) time.Time { return t.Add(time.Hour) })
	found := times(reflect.ValueOf(moved))
	require.NotEmpty(t, found)
	for _, then := range found {
		require.Equal(t, at.Add(time.Hour), then)
	}
	for _, then := range times(reflect.ValueOf(r)) {
		require.Equal(t, at, then, "it shares nothing")
	}
}

// Whatever a file holds, nothing breaks: sessions that are none are left out, those inside each other are not.
func FuzzResume(f *testing.F) {
	m := newMachine(f)
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.begin("nested", "run", m.fork(101, 100, "python", "fold.py")).Stop()
	m.sleep()
	b, err := json.Marshal(m.meter.Keep())
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"boot_id":"dabbc8e8-f548-4a51-8f54-01d2b8de491e","sessions":[{"id":"a","parent":"a","record":{"Segments":[{}]}},{"id":"a"},{"id":"b","record":{"Segments":[]}}],` +
		`"processes":[{"pid":100,"parent":100,"sessions":["a","c"]},{"pid":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k Kept
		if json.Unmarshal(b, &k) != nil {
			return
		}
		m := newMachine(t)
		sessions, err := m.meter.Resume(k)
		if err != nil {
			require.ErrorIs(t, err, ErrOtherBoot)
		}
		m.sleep()
		for _, s := range sessions {
			s.Alive()
			s.Switch(Inference)
			s.Stop()
			s.Continue()
		}
		m.sleep()
		for _, s := range sessions {
			s.Record()
			s.Close()
		}
		m.meter.Keep()
	})
}

// What goes on is all that was kept: kept again at the same moment, it is the same.
func TestNothingKeptIsForgotten(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.fork(60, 50, "sh", "train.sh")
	m.begin("run", "", m.fork(100, 60, "python", "train.py"))
	nested := m.begin("nested", "run", m.fork(101, 100, "python", "fold.py"))
	m.meter.unit = UnitCgroup
	m.fork(200, 50, "python", "job.py")
	m.in(200, "/job")
	m.begin("job", "", Process{PID: 200, Start: uint64(m.procs[200].start)})
	m.run(101, 30)
	m.sleep()
	nested.Stop()
	m.run(100, 10)
	m.sleep()
	p := m.meter.trees.tracked[101]
	p.debt, p.proportion, p.above = 3*time.Millisecond, 0.5, m.meter.sessions[:1]
	m.meter.factor = 1.5
	m.run(100, 2)
	m.now = m.now.Add(50 * time.Millisecond)
	m.meter.Sample() // which reads no sensor
	kept := kill(t, m.meter)
	require.NotNil(t, kept.Sessions[1].Held)
	require.Equal(t, "/job", kept.Sessions[2].Cgroup)
	require.NotZero(t, kept.Lent[CPU])
	require.NotZero(t, kept.Sessions[0].Active)
	require.NotEmpty(t, kept.Sessions[0].Past.Moments)
	m.meter = m.open()
	_, err := m.meter.Resume(kept)
	require.NoError(t, err)
	assert.Equal(t, kept, kill(t, m.meter))
}

// A process that came into a run's control group while the proxy was down is the run's from then on, and what it used
// before is not; one that began in it is from its beginning.
func TestProcessesEnterAGroupWhileTheProxyIsDown(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.unit = UnitCgroup
	m.fork(100, 50, "python", "job.py")
	m.in(100, "/job")
	m.fork(200, 50, "python", "moves.py")
	m.run(200, 1000)
	m.begin("run", "", Process{PID: 100, Start: uint64(m.procs[100].start)})
	m.sleep()
	s := m.restart(func() {
		m.now = m.now.Add(2 * time.Second)
		m.in(200, "/job/moved")
		m.fork(300, 50, "python", "new.py")
		m.in(300, "/job/new")
		m.run(300, 40)
		m.busy += 60 // somebody else's
		m.flush()
	})["run"]
	had := cpuOf(s)
	assert.InDelta(t, (20*2+30)*0.4, had, 1e-9)
	m.run(200, 100)
	m.sleep()
	assert.InDelta(t, had+20+30, cpuOf(s), 1e-9)
	m.exit(100)
	m.exit(300)
	assert.True(t, s.Alive())
	m.exit(200)
	assert.False(t, s.Alive())
}

// A run stays in the one that it is nested in, and what it used was given to that once: its tag may be set again.
func TestARunIsNestedOnceAcrossARestart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.begin("nested", "run", m.fork(101, 100, "python", "fold.py"))
	m.run(101, 50)
	m.sleep()
	sessions := m.restart(func() {})
	had := sessions["run"].Record().Energy()
	assert.False(t, sessions["nested"].Nest("run"))
	assert.Equal(t, had, sessions["run"].Record().Energy())
	m.conserved()
}

// The time of segments that were joined outlives a restart: each of them spans the time of all.
func TestJoinedSegmentsOutliveARestart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("run", "", m.fork(100, 50, "python", "predict.py"))
	for n := range manySegments {
		m.now = m.now.Add(10 * time.Second)
		s.Switch([]Phase{Inference, Training}[n%2])
	}
	m.sleep()
	before := s.Record()
	require.NotZero(t, before.Segments[0].Joined)
	after := m.restart(func() {})["run"].Record()
	assert.Equal(t, before.Duration(), after.Duration())
}

// What runs had that are over is in the totals after a restart, also where no run goes on; TestLaws found it.
func TestTotalsOutliveARestartWithoutAnOpenRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	m.run(100, 50)
	m.sleep()
	s.Close()
	kept := kill(t, m.meter)
	m.meter = m.open()
	_, err := m.meter.Resume(kept)
	require.NoError(t, err)
	m.conserved(s)
}

// A run may be nested in one that began after it: it is after a restart, too; TestLaws found it.
func TestARunInOneThatBeganLaterOutlivesARestart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	nested := m.begin("nested", "", m.fork(101, 50, "python", "fold.py"))
	m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	require.True(t, nested.Nest("run"))
	sessions := m.restart(func() {})
	had := cpuOf(sessions["run"])
	m.run(101, 50)
	m.sleep()
	assert.InDelta(t, had+35, cpuOf(sessions["run"]), 1e-9)
	m.conserved(sessions["run"])
}
