package carbon

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// MLflow cuts a tag at 5,000 characters on old servers: a ledger of a long run must fit, and lose time but no energy.
func TestALedgerFitsIntoATagAndKeepsAllEnergy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := Ledger{}
		at := time.Date(2026, 11, 25, 11, 40, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "start")))
		longest := rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Minute, 5 * time.Hour}).Draw(t, "longest")
		for range rapid.IntRange(0, 600).Draw(t, "uses") {
			name := rapid.SampledFrom([]string{"training", "inference"}).Draw(t, "for")
			end := at.Add(time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t, "length")))
			l[name] = append(l[name], Use{Start: at, End: end, KWh: rapid.Float64Range(0, 3).Draw(t, "kWh")})
			at = end
		}
		text := l.Encode(5000)
		require.NotEmpty(t, text)
		require.LessOrEqual(t, len(text), 5000)
		back, err := DecodeLedger(text)
		require.NoError(t, err)
		for name, uses := range l {
			one, two := Ledger{"": uses}, Ledger{"": back[name]}
			assert.InDelta(t, one.KWh(), two.KWh(), 1e-9*(l.KWh()+1e-12), name)
		}
	})
}

// What fits is kept to the millisecond, pauses too, so that a later look at another grid's hours is as exact as the first.
func TestAShortLedgerKeepsItsTimes(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 11, 58, 30, 250e6, time.UTC)
	l := Ledger{
		"training":  {{at, at.Add(90 * time.Second), 0.5}, {at.Add(90 * time.Second), at.Add(5 * time.Minute), 0.25}},
		"inference": {{at.Add(10 * time.Minute), at.Add(11*time.Minute + 5*time.Millisecond), 0.125}, {at.Add(2 * time.Hour), at.Add(3 * time.Hour), 1}},
	}
	back, err := DecodeLedger(l.Encode(5000))
	require.NoError(t, err)
	for name, uses := range l {
		require.Len(t, back[name], len(uses))
		for i, u := range uses {
			assert.Equal(t, u.Start, back[name][i].Start)
			assert.Equal(t, u.End, back[name][i].End)
			assert.InDelta(t, u.KWh, back[name][i].KWh, 1e-8)
		}
	}
}

func TestADayOfSlicesStaysWhole(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 25, 0, 2, 0, 0, time.UTC)
	var uses []Use
	for i := range 12 * 24 {
		at := start.Add(time.Duration(i) * 5 * time.Minute).Truncate(5 * time.Minute)
		uses = append(uses, Use{at, at.Add(5 * time.Minute), 0.01234567 + float64(i)*1e-5})
	}
	back, err := DecodeLedger(Ledger{"training": uses}.Encode(5000))
	require.NoError(t, err)
	assert.Len(t, back["training"], 12*24)
}

// A model that is served for months, with predictions every ten seconds, must not fill the memory.
func TestALongLedgerStaysSmall(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := Ledger{}
	for i := range 40 * 24 * 360 {
		at := start.Add(time.Duration(i) * 10 * time.Second)
		l["inference"] = append(l["inference"], Use{at, at.Add(10 * time.Millisecond), 1e-6})
		if i%1000 == 0 {
			l.Bound(1000)
			require.LessOrEqual(t, len(l["inference"]), 1000)
		}
	}
	assert.InEpsilon(t, 40*24*360*1e-6, l.KWh(), 1e-9)
}

// Anybody who may tag a run may write this tag; it must not send us asking a provider for a thousand years.
func TestLedgersThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `[]`, `{"v":1,"unit_j":0}`, `{"v":1,"unit_j":1,"uses":{"x":{"s_e":[[1,1]]}}}`,
		`{"v":1,"unit_j":1,"uses":{"x":{"start":"2026-11-25T11:40:00Z","s_e":[[-1,1]]}}}`,
		`{"v":1,"unit_j":1,"uses":{"x":{"start":"2026-11-25T11:40:00Z","s_e":[[1,-1]]}}}`,
		`{"v":1,"unit_j":1,"uses":{"x":{"start":"2026-11-25T11:40:00Z","s_e":[[2e8,1],[2e8,1]]}}}`,
		`{"v":1,"unit_j":1,"uses":{"x":{"start":"9999-11-25T11:40:00Z","s_e":[[1,1]]}}}`,
	} {
		_, err := DecodeLedger(text)
		assert.Error(t, err, text)
	}
}

func FuzzDecodeLedger(f *testing.F) {
	f.Add(`{"v":1,"unit_j":0.001,"uses":{"training":{"start":"2026-11-25T11:40:00Z","s_e":[[300,1234],[12.5,0],[0,7]]}}}`)
	f.Add(`{"v":2}`)
	f.Add(`{"v":1,"unit_j":1e300,"uses":{"":{"s_e":[[1e300,-1]]}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := DecodeLedger(text)
		if err != nil {
			return
		}
		for _, uses := range l {
			for _, u := range uses {
				if u.KWh < 0 || u.End.Before(u.Start) {
					t.Fatal("a use that cannot be")
				}
			}
		}
		_ = l.Encode(5000)
	})
}
