package carbon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/patrickmn/go-cache"
)

// wattTime is WattTime's API, version 3. Its signals are CO2 of burning the fuel: co2_aoer of all plants, co2_moer of those
// that answer to one kWh more.
type wattTime struct {
	site
	region         string
	signal         Signal
	user, password Secret
	session        *cache.Cache // the token that a login gives, under "token"
}

// WattTimeURL is the provider's own server.
const WattTimeURL = "https://api.watttime.org"

// tokenLasts is for how long a token is used; it is good for 30 minutes.
const tokenLasts = 25 * time.Minute

// gramsPerPound is exact; lb/MWh x 0.45359237 = g/kWh.
const gramsPerPound = 453.59237

// NewWattTime returns the provider for one of its regions ("CAISO_NORTH") and one of the signals.
func NewWattTime(base, region string, signal Signal, user, password Secret) (Provider, error) {
	s, err := newSite("WattTime", base)
	return &wattTime{site: s, region: region, signal: signal, user: user, password: password, session: cache.New(tokenLasts, 0)}, err
}

// Name is Provider's.
func (w *wattTime) Name() string { return "WattTime, region " + w.region }

// wattTimeLimit is the longest range that is answered at once.
const wattTimeLimit = 32 * 24 * time.Hour

// Factors is Provider's.
func (w *wattTime) Factors(ctx context.Context, from, to time.Time) ([]Factor, error) {
	var all []Factor
	for start := from.Truncate(5 * time.Minute); start.Before(to); start = start.Add(wattTimeLimit) {
		body, err := w.ask(ctx, url.Values{
			"region": {w.region}, "signal_type": {w.signalType()},
			"start": {start.UTC().Format(time.RFC3339)}, "end": {earlier(to, start.Add(wattTimeLimit)).UTC().Format(time.RFC3339)},
		})
		if err != nil {
			return nil, err
		}
		some, err := parseWattTime(w.region, w.signal, body)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func (w *wattTime) signalType() string {
	if w.signal == Marginal {
		return "co2_moer"
	}
	return "co2_aoer"
}

// ask asks with the token of an earlier login, and once more with a new one where that is not accepted any longer.
func (w *wattTime) ask(ctx context.Context, query url.Values) ([]byte, error) {
	kept, reused := w.session.Get("token")
	token, _ := kept.(Secret)
	for {
		if token == "" {
			var err error
			if token, err = w.login(ctx); err != nil {
				return nil, err
			}
			w.session.Set("token", token, tokenLasts)
		}
		body, err := w.get(ctx, "v3/historical", query, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+string(token)) })
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			return body, err
		}
		w.session.Delete("token")
		if !reused {
			return nil, err
		}
		token, reused = "", false
	}
}

func (w *wattTime) login(ctx context.Context) (Secret, error) {
	body, err := w.get(ctx, "login", nil, func(r *http.Request) { r.SetBasicAuth(string(w.user), string(w.password)) })
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := decode("WattTime", body, &answer); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", fmt.Errorf("WattTime: no token in the answer to a login")
	}
	return Secret(answer.Token), nil
}

// parseWattTime reads an answer of /v3/historical.
func parseWattTime(region string, signal Signal, body []byte) ([]Factor, error) {
	var answer struct {
		Data []struct {
			Time    time.Time `json:"point_time"`
			Value   *float64  `json:"value"`
			Imputed bool      `json:"imputed_data_used"`
		} `json:"data"`
		Meta struct {
			Seconds int    `json:"data_point_period_seconds"`
			Region  string `json:"region"`
			Signal  string `json:"signal_type"`
			Units   string `json:"units"`
		} `json:"meta"`
	}
	if err := decode("WattTime", body, &answer); err != nil {
		return nil, err
	}
	m := answer.Meta
	switch {
	case len(answer.Data) == 0:
		return nil, nil
	case m.Units != "lbs_co2_per_mwh":
		return nil, errors.New("WattTime: the values are not in lb of CO2 per MWh")
	case m.Region != region:
		return nil, errors.New("WattTime: the values are of another region")
	case (m.Signal == "co2_moer") != (signal == Marginal):
		return nil, errors.New("WattTime: the values are of the other signal")
	case m.Seconds < 1 || m.Seconds > 86400:
		return nil, errors.New("WattTime: the answer does not say what period a value is of")
	}
	period := time.Duration(m.Seconds) * time.Second
	var factors []Factor
	for _, v := range answer.Data {
		if v.Value == nil || v.Time.IsZero() || !believable(*v.Value*gramsPerPound/1000) {
			continue
		}
		factors = append(factors, Factor{
			Intensity: Intensity(*v.Value * gramsPerPound / 1000), Source: "WattTime, region " + region, Start: v.Time, End: v.Time.Add(period),
			Basis: DirectCO2, Signal: signal, Estimated: v.Imputed,
		})
	}
	return factors, nil
}
