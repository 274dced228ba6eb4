package meter

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Against the truth, and beside a meter that is never disturbed: a proxy that is killed every minute and a half, and is
// back after nine seconds, reads all that the counters count, and gives each run the same CPU energy to 1 %, while
// processes come and go by the hundred; none of it is partial.
func TestKilledAgainAndAgainAgainstTheTruth(t *testing.T) {
	t.Parallel()
	s := newSimulated(t, 7)
	require.NoError(t, os.MkdirAll(filepath.Join(s.procfs, "sys", "kernel", "random"), 0o755))
	s.write(filepath.Join(s.procfs, "sys", "kernel", "random", "boot_id"), "dabbc8e8-f548-4a51-8f54-01d2b8de491e\n")
	epoch := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return epoch.Add(s.now) }
	undisturbed := &silicon{name: "undisturbed", power: turbo, weights: equalWork, zones: raplZones()}
	killed := &silicon{name: "killed", power: turbo, weights: equalWork}
	info := cpuinfo{"GenuineIntel", "Intel(R) Xeon(R) Gold 6126 CPU @ 2.60GHz", 6, 85, 4, 2}
	s.install(undisturbed, info, now)
	s.install(killed, info, now)
	open := func() *Meter {
		m := New(Config{Procfs: s.procfs, Sysfs: undisturbed.sysfs, Now: now})
		m.boot = func() time.Duration { return s.now }
		m.awake, m.lastBoot = m.boot, s.now
		return m
	}
	killed.meter = open()
	kills := 0
	for at := 50 * time.Second; at < 880*time.Second; at += 90 * time.Second {
		var kept Kept
		s.at(at, func() { kept = kill(t, killed.meter) }) // what it reads after that is forgotten
		s.at(at+9*time.Second, func() {
			kills++
			s.flush()
			killed.meter = open()
			sessions, err := killed.meter.Resume(kept)
			require.NoError(t, err)
			for o := simRunA; o < simOwners; o++ {
				require.Contains(t, sessions, o.String())
				killed.runs[o] = sessions[o.String()]
			}
		})
	}
	s.live()
	require.Equal(t, 10, kills)
	assert.InEpsilon(t, undisturbed.meter.Totals().Sensors[CPU].Joules(), killed.meter.Totals().Sensors[CPU].Joules(), 1e-9)
	for o := simRunA; o < simOwners; o++ {
		one, other := undisturbed.runs[o].Record(), killed.runs[o].Record()
		t.Logf("%s: %.1f J undisturbed, %.1f J killed, %.1f J true", o, one.Energy()[CPU], other.Energy()[CPU], killed.cpu[o])
		assert.InEpsilon(t, one.Energy()[CPU].Joules(), other.Energy()[CPU].Joules(), 0.01, o)
		assert.InEpsilon(t, killed.cpu[o], other.Energy()[CPU].Joules(), 0.02, o)
		assert.InEpsilon(t, one.Energy()[RAM].Joules(), other.Energy()[RAM].Joules(), 0.01, o)
		assert.Equal(t, one.Duration(), other.Duration())
		assert.Zero(t, other.Gaps)
	}
}
