package carbon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/patrickmn/go-cache"
	"golang.org/x/sync/singleflight"
)

// Provider tells the intensity of one zone of the grid over time.
type Provider interface {
	// Name says whose values they are, as in "Electricity Maps, zone BE".
	Name() string
	// Factors returns what is known of [from, to): in any order, with gaps where the provider has none. It may return
	// more than was asked for. A refusal is a *RefusedError.
	Factors(ctx context.Context, from, to time.Time) ([]Factor, error)
}

// RefusedError is a provider's answer that holds no values. It never shows the answer's text, which may repeat the key.
type RefusedError struct {
	Provider   string
	Status     int
	RetryAfter time.Duration // 0 if the provider does not say
}

// Error names the provider and its status, and what to do about those that the user can mend.
func (e *RefusedError) Error() string {
	text := fmt.Sprintf("%s answered %d", e.Provider, e.Status)
	switch e.Status {
	case 401, 403:
		text += ": the key is not accepted for this zone"
	case 404:
		text += ": it does not know this zone"
	case 429:
		text += ": too many requests"
	}
	return text
}

const (
	// holdLast is for how long a value stands in for the next one: for some hours a grid resembles itself, after that the
	// sun and the demand have changed, and a year's average tells more.
	holdLast = 3 * time.Hour
	// lookBack is how much of the past is asked for each time: measurements come late and correct what was an estimate.
	lookBack = 24 * time.Hour
	// lookFar is the most that is asked for, for runs that began before the proxy.
	lookFar = 10 * 24 * time.Hour
	// keepFor is how long values are kept: the grams of a run that is open are worked out anew each time.
	keepFor = 92 * 24 * time.Hour
	// fetchTimeout is how long a provider may take.
	fetchTimeout = 20 * time.Second
	// Pauses between tries while there is no value for now.
	firstPause, longestPause = 30 * time.Second, 15 * time.Minute
)

// Feed keeps a provider's values over time. One fetch serves all who ask, none of whom waits for it.
type Feed struct {
	provider Provider
	log      *slog.Logger
	fetches  singleflight.Group
	fresh    *cache.Cache // holds the key "now" until there is reason to ask again
	done     chan struct{}

	mu     sync.Mutex
	values series
	oldest time.Time // that somebody asked for and that is not fetched yet; zero: nobody did
	asked  time.Time // since when all was asked for once; zero: nothing was
	pause  time.Duration
	failed error // of the latest fetch
}

// NewFeed returns a feed that is empty until Run or Fetch.
func NewFeed(p Provider, log *slog.Logger) *Feed {
	return &Feed{provider: p, log: log, fresh: cache.New(cache.NoExpiration, 0), done: make(chan struct{}, 1)}
}

// Run fetches each period's value as it comes, until ctx is done.
func (f *Feed) Run(ctx context.Context) error {
	for {
		f.wake()
		var wait time.Duration
		if _, until, ok := f.fresh.GetWithExpiration(keyNow); ok {
			wait = time.Until(until) + time.Millisecond
		} else {
			wait = fetchTimeout // a fetch is under way, and tells when it is over
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-f.done:
			timer.Stop()
		}
	}
}

// keyNow is the cache's only key: a provider has one zone.
const keyNow = "now"

// wake fetches in the background, unless what is there still holds.
func (f *Feed) wake() {
	if _, ok := f.fresh.Get(keyNow); ok {
		return
	}
	f.fetches.DoChan(keyNow, func() (any, error) {
		defer func() {
			if fault := recover(); fault != nil { // which must not end the program
				f.log.Error("fault in reading a provider's answer", "fault", fault)
				f.fresh.Set(keyNow, true, longestPause)
			}
			select {
			case f.done <- struct{}{}:
			default:
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		return nil, f.refresh(ctx)
	})
}

// refresh fetches what is new, and decides when to ask again.
func (f *Feed) refresh(ctx context.Context) error {
	now := time.Now()
	f.mu.Lock()
	from := now.Add(-lookBack)
	if !f.oldest.IsZero() && f.oldest.Before(from) {
		from = f.oldest
	}
	f.mu.Unlock()
	err := f.Fetch(ctx, from, now.Add(time.Hour))
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.oldest = time.Time{}
		if f.asked.IsZero() || from.Before(f.asked) {
			f.asked = from
		}
	}
	f.values.forget(now.Add(-keepFor))
	current, _, _ := f.values.find(now)
	if err == nil && current != nil {
		if f.failed != nil {
			f.log.Info("the provider of carbon intensity answers again")
		}
		f.pause, f.failed = 0, nil
		// A second later, so that it is there.
		f.fresh.Set(keyNow, true, max(current.End.Sub(now)+time.Second, time.Second))
		return nil
	}
	f.pause = min(max(firstPause, 2*f.pause), longestPause)
	pause := f.pause
	var refused *RefusedError
	if errors.As(err, &refused) && refused.RetryAfter > pause {
		pause = min(refused.RetryAfter, 24*time.Hour)
	}
	f.fresh.Set(keyNow, true, pause)
	if err == nil {
		err = fmt.Errorf("%s has no value for now", f.provider.Name())
	}
	if f.failed == nil {
		f.log.Warn("no carbon intensity from the provider; the last value or the table is used", "error", err, "next_try", pause)
	} else {
		f.log.Debug("still no carbon intensity from the provider", "error", err, "next_try", pause)
	}
	f.failed = err
	return err
}

// Fetch waits for the values of [from, to).
func (f *Feed) Fetch(ctx context.Context, from, to time.Time) error {
	factors, err := f.provider.Factors(ctx, from, to)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range factors {
		f.values.put(v)
	}
	return nil
}

// followed is a feed's timeline, with the table's figure where the feed has none.
type followed struct {
	feed  *Feed
	table Factor
}

// factorAt is timeline's: the value of the time, else the last one before it for a while, else the table's.
func (l followed) factorAt(t time.Time) (Factor, time.Time) {
	f := l.feed
	f.mu.Lock()
	at, before, after := f.values.find(t)
	var found Factor
	var until time.Time
	switch {
	case at != nil:
		found, until = *at, at.End
	case before != nil && t.Before(before.End.Add(holdLast)):
		found, until = *before, before.End.Add(holdLast)
		found.Instead = "its last value, since there is none for the time"
	default:
		found = l.table
		found.Instead = "since " + f.provider.Name() + " has no value for the time"
	}
	if at == nil && after != nil && (until.IsZero() || after.Start.Before(until)) {
		until = after.Start
	}
	missed := at == nil
	if missed {
		f.want(t)
	}
	f.mu.Unlock()
	if missed {
		f.wake()
	}
	return found, until
}

// want notes a time before all that was asked for. Callers hold mu.
func (f *Feed) want(t time.Time) {
	if limit := time.Now().Add(-lookFar); t.Before(limit) {
		t = limit
	}
	if f.asked.IsZero() || !t.Before(f.asked) {
		return // the next fetch covers it
	}
	t = t.Truncate(time.Hour)
	if f.oldest.IsZero() || t.Before(f.oldest) {
		f.oldest = t
		f.fresh.Delete(keyNow)
	}
}
