package carbon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// silent is a provider that has nothing.
type silent struct{}

func (silent) Name() string { return "a provider" }
func (silent) Factors(context.Context, time.Time, time.Time) ([]Factor, error) {
	return nil, nil
}

// scripted is a provider that answers as a test says.
type scripted struct {
	calls  atomic.Int64
	answer func(call int64, from, to time.Time) ([]Factor, error)
}

func (s *scripted) Name() string { return "a provider" }
func (s *scripted) Factors(_ context.Context, from, to time.Time) ([]Factor, error) {
	return s.answer(s.calls.Add(1), from, to)
}

// hour is the figure of the hour that t is in.
func hour(t time.Time, g float64) Factor {
	start := t.Truncate(time.Hour)
	return Factor{Intensity: Intensity(g), Source: "test", Start: start, End: start.Add(time.Hour), Basis: Lifecycle, Signal: Average}
}

func running(t *testing.T, p Provider, log *slog.Logger) *Supply {
	t.Helper()
	f := NewFeed(p, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	s, err := NewSupply(World(), nil, nil)
	require.NoError(t, err)
	s.Follow(f)
	return s
}

// A value is asked for once an hour, however many runs ask for it how often.
func TestAValueIsFetchedOncePerPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{answer: func(call int64, from, to time.Time) ([]Factor, error) {
			time.Sleep(2 * time.Second) // a slow answer, which more runs ask for meanwhile
			return []Factor{hour(time.Now(), 100*float64(call))}, nil
		}}
		s := running(t, p, slog.New(slog.DiscardHandler))
		var runs sync.WaitGroup
		for range 100 {
			runs.Go(func() {
				for range 10 {
					began := time.Now()
					_ = s.At(time.Now())
					assert.Zero(t, time.Since(began), "nobody waits")
					time.Sleep(time.Minute)
				}
			})
		}
		assert.Contains(t, s.At(time.Now()).Instead, "has no value for the time", "at the very start the table answers")
		runs.Wait()
		assert.EqualValues(t, 1, p.calls.Load())
		assert.Equal(t, 100.0, s.At(time.Now()).Intensity.GPerKWh())
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		assert.EqualValues(t, 4, p.calls.Load())
		assert.Equal(t, 400.0, s.At(time.Now()).Intensity.GPerKWh())
		assert.Equal(t, 100.0, s.At(time.Now().Add(-3*time.Hour)).Intensity.GPerKWh(), "earlier hours keep their own")
	})
}

// A provider that fails is asked again with pauses that grow; meanwhile the last value stands in for some hours, and then
// the table's. One line in the log says so, and one that it is over.
func TestAFailureFallsBackAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var down atomic.Bool
		p := &scripted{answer: func(int64, time.Time, time.Time) ([]Factor, error) {
			if down.Load() {
				return nil, errors.New("no route to host")
			}
			return []Factor{hour(time.Now(), 100)}, nil
		}}
		s := running(t, p, slog.New(slog.NewTextHandler(&log, nil)))
		time.Sleep(time.Minute)
		assert.Empty(t, s.At(time.Now()).Instead)
		down.Store(true)
		time.Sleep(2 * time.Hour)
		assert.Equal(t, 100.0, s.At(time.Now()).Intensity.GPerKWh())
		assert.Equal(t, "its last value, since there is none for the time", s.At(time.Now()).Instead)
		tries := p.calls.Load()
		assert.Greater(t, tries, int64(5))
		assert.Less(t, tries, int64(15), "with pauses")
		time.Sleep(3 * time.Hour)
		assert.Equal(t, 475.0, s.At(time.Now()).Intensity.GPerKWh())
		assert.Equal(t, "since a provider has no value for the time", s.At(time.Now()).Instead)
		down.Store(false)
		time.Sleep(longestPause + time.Second)
		assert.Empty(t, s.At(time.Now()).Instead)
		assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=WARN")), log.String())
		assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("answers again")), log.String())
	})
}

// A fault of ours in reading an answer is not the end of everybody's tracking.
func TestAFaultInAProviderEndsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{answer: func(call int64, _, _ time.Time) ([]Factor, error) {
			if call == 1 {
				panic("a fault")
			}
			return []Factor{hour(time.Now(), 100)}, nil
		}}
		s := running(t, p, slog.New(slog.DiscardHandler))
		time.Sleep(time.Minute)
		assert.Equal(t, 475.0, s.At(time.Now()).Intensity.GPerKWh())
		time.Sleep(longestPause)
		assert.Equal(t, 100.0, s.At(time.Now()).Intensity.GPerKWh())
	})
}

// Retry-After is a request that providers bar those for who pass over it.
func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Time
		p := &scripted{answer: func(call int64, _, _ time.Time) ([]Factor, error) {
			tries = append(tries, time.Now())
			if call == 1 {
				return nil, &RefusedError{Provider: "a provider", Status: 429, RetryAfter: 10 * time.Minute}
			}
			return []Factor{hour(time.Now(), 100)}, nil
		}}
		s := running(t, p, slog.New(slog.DiscardHandler))
		for range 11 {
			time.Sleep(time.Minute)
			_ = s.At(time.Now())
		}
		synctest.Wait()
		require.Len(t, tries, 2)
		assert.GreaterOrEqual(t, tries[1].Sub(tries[0]), 10*time.Minute)
	})
}

// An estimate for the hour is corrected by the measurement that comes hours later, for a run that is still open; a run
// from before the proxy's start gets the values of its hours, once.
func TestLateAndEarlyValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := &scripted{answer: func(_ int64, from, to time.Time) ([]Factor, error) {
			var all []Factor
			for at := from.Truncate(time.Hour); at.Before(to); at = at.Add(time.Hour) {
				f := hour(at, 100)
				if f.Estimated = time.Since(at) < 2*time.Hour; f.Estimated {
					f.Intensity = 500
				}
				all = append(all, f)
			}
			return all, nil
		}}
		s := running(t, p, slog.New(slog.DiscardHandler))
		time.Sleep(time.Minute)
		now := time.Now()
		assert.InDelta(t, 500, s.Emissions(now.Truncate(time.Hour), now.Truncate(time.Hour).Add(time.Minute), 1).Grams(), 1e-9)
		time.Sleep(4 * time.Hour)
		assert.InDelta(t, 100, s.Emissions(now.Truncate(time.Hour), now.Truncate(time.Hour).Add(time.Minute), 1).Grams(), 1e-9)
		assert.False(t, s.At(now).Estimated)

		calls := p.calls.Load()
		long := began.Add(-5 * 24 * time.Hour)
		assert.Equal(t, 475.0, s.At(long).Intensity.GPerKWh())
		synctest.Wait()
		assert.Equal(t, 100.0, s.At(long).Intensity.GPerKWh())
		for range 10 {
			_ = s.At(began.Add(-300 * 24 * time.Hour)) // which nobody has
			synctest.Wait()
		}
		assert.LessOrEqual(t, p.calls.Load()-calls, int64(2), "what is not there is not asked for again and again")
	})
}
