package carbon

import (
	"context"
	"time"
)

// gb is the Carbon Intensity API of Great Britain's system operator: CO2 of generation, average signal, half-hourly, no key.
type gb struct{ site }

// GBURL is the provider's own server.
const GBURL = "https://api.carbonintensity.org.uk"

// NewGB returns the provider for Great Britain.
func NewGB(base string) (Provider, error) {
	s, err := newSite("GB Carbon Intensity", base)
	return &gb{site: s}, err
}

// Name is Provider's.
func (*gb) Name() string { return "GB Carbon Intensity" }

const (
	gbPeriod = 30 * time.Minute
	gbLimit  = 14 * 24 * time.Hour // the longest range that is answered at once
	gbTime   = "2006-01-02T15:04Z"
)

// Factors is Provider's.
func (g *gb) Factors(ctx context.Context, from, to time.Time) ([]Factor, error) {
	var all []Factor
	for start := from.Truncate(gbPeriod); start.Before(to); start = start.Add(gbLimit) {
		body, err := g.get(ctx, "intensity/"+start.UTC().Format(gbTime)+"/"+earlier(to, start.Add(gbLimit)).UTC().Format(gbTime), nil, nil)
		if err != nil {
			return nil, err
		}
		some, err := parseGB(body)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// parseGB reads an answer. A half-hour that is not measured yet has its forecast, as an estimate.
func parseGB(body []byte) ([]Factor, error) {
	var answer struct {
		Data []struct {
			From      string `json:"from"`
			To        string `json:"to"`
			Intensity struct {
				Forecast *float64 `json:"forecast"`
				Actual   *float64 `json:"actual"`
			} `json:"intensity"`
		} `json:"data"`
	}
	if err := decode("GB Carbon Intensity", body, &answer); err != nil {
		return nil, err
	}
	var factors []Factor
	for _, v := range answer.Data {
		value, estimated := v.Intensity.Actual, false
		if value == nil {
			value, estimated = v.Intensity.Forecast, true
		}
		start, err1 := time.Parse(gbTime, v.From)
		end, err2 := time.Parse(gbTime, v.To)
		if value == nil || !believable(*value) || err1 != nil || err2 != nil || end.Sub(start) <= 0 || end.Sub(start) > 24*time.Hour {
			continue
		}
		factors = append(factors, Factor{
			Intensity: Intensity(*value), Source: "GB Carbon Intensity", Start: start, End: end,
			Basis: DirectCO2, Signal: Average, Estimated: estimated,
		})
	}
	return factors, nil
}
