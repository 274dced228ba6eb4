package carbon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Secret is a key or a password. Nothing that prints or logs it shows it.
type Secret string

// String never shows the secret.
func (Secret) String() string { return "[secret]" }

// GoString never shows the secret.
func (Secret) GoString() string { return "[secret]" }

// LogValue is slog's: a secret is never logged.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// maxFactor bounds what is believed of a provider, in g/kWh: the dirtiest coal plants emit about 1,500.
const maxFactor = 5000

// believable says whether a provider's number can be an intensity in g/kWh.
func believable(v float64) bool { return v >= 0 && v <= maxFactor && !math.IsNaN(v) }

// maxAnswer bounds what is read of an answer; ten days in steps of five minutes are half a megabyte.
const maxAnswer = 8 << 20

// site is a provider's server.
type site struct {
	name string // of the provider
	base *url.URL
	http *http.Client
}

func newSite(name, base string) (site, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return site{}, fmt.Errorf("%q is not the URL of a server", base)
	}
	return site{name: name, base: u, http: &http.Client{
		// A key goes to nobody but the provider.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// get reads one answer. What is not 200 is a *RefusedError. No error shows the query, a header or the answer.
func (s site) get(ctx context.Context, path string, query url.Values, header func(*http.Request)) ([]byte, error) {
	u := s.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: no request can be made for %s", s.name, path)
	}
	req.Header.Set("Accept", "application/json")
	if header != nil {
		header(req)
	}
	res, err := s.http.Do(req)
	if err != nil {
		var whole *url.Error
		if errors.As(err, &whole) {
			err = whole.Err // without the URL
		}
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &RefusedError{Provider: s.name, Status: res.StatusCode, RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", s.name, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%s: the answer is too long", s.name)
	}
	return body, nil
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, 10.2.3). It is 0 for anything else.
func retryAfter(header string, now time.Time) time.Duration {
	if s, err := strconv.Atoi(header); err == nil && s > 0 {
		return time.Duration(min(s, 1<<20)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// decode reads JSON. The error does not show it.
func decode(name string, body []byte, into any) error {
	if json.Unmarshal(body, into) != nil {
		return fmt.Errorf("%s: the answer is not what its documentation says", name)
	}
	return nil
}
