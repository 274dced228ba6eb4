package carbon

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// electricityMaps is Electricity Maps' API, version 3: lifecycle factors, average signal, flow-traced (imports count with
// their origin), hourly.
type electricityMaps struct {
	site
	zone string
	key  Secret
}

// ElectricityMapsURL is the provider's own server.
const ElectricityMapsURL = "https://api.electricitymaps.com"

// NewElectricityMaps returns the provider for one of its zones ("BE", "US-CAL-CISO").
func NewElectricityMaps(base, zone string, key Secret) (Provider, error) {
	s, err := newSite("Electricity Maps", base)
	return &electricityMaps{site: s, zone: zone, key: key}, err
}

// Name is Provider's.
func (e *electricityMaps) Name() string { return "Electricity Maps, zone " + e.zone }

// historyCovers is what "history" has, on every plan; longer ranges need a paid one.
const historyCovers = 24 * time.Hour

// rangeLimit is the longest range that is answered at once with hourly values.
const rangeLimit = 10 * 24 * time.Hour

// Factors is Provider's. The latest value and the last 24 hours are asked for by the calls that every plan has.
func (e *electricityMaps) Factors(ctx context.Context, from, to time.Time) ([]Factor, error) {
	now := time.Now()
	var all []Factor
	if from.Before(now.Add(-historyCovers - time.Hour)) {
		past, err := e.past(ctx, from, earlier(to, now))
		var refused *RefusedError
		if err != nil && !(errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden)) {
			return nil, err
		}
		if err != nil && to.Before(now.Add(-historyCovers)) {
			return nil, err // nothing else could have it
		}
		all = append(all, past...)
	}
	if to.Before(now.Add(-historyCovers)) {
		return all, nil
	}
	for _, call := range []string{"history", "latest"} { // the latest value last, which may be newer
		some, err := e.ask(ctx, call, url.Values{})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// past asks for a range piece by piece.
func (e *electricityMaps) past(ctx context.Context, from, to time.Time) ([]Factor, error) {
	var all []Factor
	for start := from.Truncate(time.Hour); start.Before(to); start = start.Add(rangeLimit) {
		some, err := e.ask(ctx, "past-range", url.Values{
			"start": {start.UTC().Format(time.RFC3339)}, "end": {earlier(to, start.Add(rangeLimit)).UTC().Format(time.RFC3339)},
		})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (e *electricityMaps) ask(ctx context.Context, call string, query url.Values) ([]Factor, error) {
	query.Set("zone", e.zone)
	query.Set("emissionFactorType", "lifecycle")
	// Without it a zone that is not known is answered with that of the caller's IP address. The second is its later name.
	query.Set("shouldUseFallbackCallerLookup", "false")
	query.Set("disableCallerLookup", "true")
	body, err := e.get(ctx, "v3/carbon-intensity/"+call, query, func(r *http.Request) { r.Header.Set("auth-token", string(e.key)) })
	if err != nil {
		return nil, err
	}
	return parseElectricityMaps(e.zone, body)
}

// electricityMapsValue is one value as the API documents it.
type electricityMapsValue struct {
	Zone        string    `json:"zone"`
	Value       *float64  `json:"carbonIntensity"` // null where there is none
	Time        time.Time `json:"datetime"`
	Factors     string    `json:"emissionFactorType"`
	Estimated   bool      `json:"isEstimated"`
	Granularity string    `json:"temporalGranularity"`
}

// parseElectricityMaps reads the answers of latest (one value), history and past-range (many). Values of another zone than
// was asked for are left out.
func parseElectricityMaps(zone string, body []byte) ([]Factor, error) {
	var answer struct {
		electricityMapsValue
		History []electricityMapsValue `json:"history"`
		Data    []electricityMapsValue `json:"data"`
	}
	if err := decode("Electricity Maps", body, &answer); err != nil {
		return nil, err
	}
	var factors []Factor
	for _, v := range append(append(answer.History, answer.Data...), answer.electricityMapsValue) {
		if v.Value == nil || v.Time.IsZero() || !believable(*v.Value) || cmp.Or(v.Zone, answer.Zone) != zone {
			continue
		}
		period := map[string]time.Duration{"5_minutes": 5 * time.Minute, "15_minutes": 15 * time.Minute}[cmp.Or(v.Granularity, answer.Granularity)]
		start := v.Time.Truncate(cmp.Or(period, time.Hour))
		f := Factor{
			Intensity: Intensity(*v.Value), Source: "Electricity Maps, zone " + zone, Start: start, End: start.Add(cmp.Or(period, time.Hour)),
			Basis: Lifecycle, Signal: Average, Estimated: v.Estimated,
		}
		if cmp.Or(v.Factors, answer.Factors) == "direct" {
			f.Basis = Direct
		}
		factors = append(factors, f)
	}
	return factors, nil
}
