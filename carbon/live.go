package carbon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// LiveNames are the providers that --live takes.
var LiveNames = []string{"electricitymaps", "watttime", "watttime-marginal", "gb"}

// Live says from whom to take the intensity as it changes.
type Live struct {
	Name    string // one of LiveNames
	Zone    string // what the provider calls the place; empty: as the tables know it
	KeyFile string // holds the key: a token, or user:password for WattTime; empty: the environment has it
	BaseURL string // of the server; empty: the provider's own
}

// Environment variables of the keys: WattTime's are those of its own client.
const (
	envElectricityMaps  = "ELECTRICITYMAPS_TOKEN"
	envWattTimeUser     = "WATTTIME_USER"
	envWattTimePassword = "WATTTIME_PASSWORD"
)

// Feed makes the feed of a place's values. getenv reads the environment. The error names the flag that mends it, and never
// shows a key.
func (l Live) Feed(place Place, getenv func(string) string, log *slog.Logger) (*Feed, error) {
	var p Provider
	var err error
	base := func(own string) string {
		if l.BaseURL != "" {
			return l.BaseURL
		}
		return own
	}
	if !slices.Contains(LiveNames, l.Name) {
		return nil, fmt.Errorf("--live: %q is no provider; allowed are %s", l.Name, strings.Join(LiveNames, ", "))
	}
	zone := l.Zone
	switch l.Name {
	case "electricitymaps":
		if zone == "" {
			zone = place.Zone
		}
		if zone == "" {
			return nil, fmt.Errorf("--live electricitymaps: it is not known in which of its zones %s (%s) is; give --live-zone, for example US-CAL-CISO, or a --location that is in one zone", place.Name, place.Code)
		}
		var key Secret
		if key, err = l.token(getenv); err == nil {
			p, err = NewElectricityMaps(base(ElectricityMapsURL), zone, key)
		}
	case "watttime", "watttime-marginal":
		if zone == "" {
			return nil, fmt.Errorf("--live %s: give --live-zone, WattTime's own name of the region, for example CAISO_NORTH", l.Name)
		}
		signal := Average
		if l.Name == "watttime-marginal" {
			signal = Marginal
		}
		var user, password Secret
		if user, password, err = l.userAndPassword(getenv); err == nil {
			p, err = NewWattTime(base(WattTimeURL), zone, signal, user, password)
		}
	case "gb":
		if zone != "" {
			return nil, errors.New("--live-zone: --live gb has no zones; leave it out")
		}
		if place.Country != "" && place.Country != "GBR" {
			return nil, fmt.Errorf("--live gb: it knows Great Britain alone, and --location is %s (%s); give --location GB, or another provider", place.Name, place.Code)
		}
		p, err = NewGB(base(GBURL))
	}
	if err != nil {
		return nil, fmt.Errorf("--live %s: %w", l.Name, err)
	}
	return NewFeed(p, log), nil
}

// token reads Electricity Maps' key.
func (l Live) token(getenv func(string) string) (Secret, error) {
	if l.KeyFile != "" {
		return l.readKey()
	}
	if key := getenv(envElectricityMaps); key != "" {
		return checkKey(key, envElectricityMaps)
	}
	return "", fmt.Errorf("its key is missing; set %s or give --live-key-file", envElectricityMaps)
}

// userAndPassword reads WattTime's.
func (l Live) userAndPassword(getenv func(string) string) (user, password Secret, err error) {
	if l.KeyFile != "" {
		key, err := l.readKey()
		if err != nil {
			return "", "", err
		}
		user, password, ok := strings.Cut(string(key), ":")
		if !ok || user == "" || password == "" {
			return "", "", fmt.Errorf("--live-key-file %s does not hold user:password", l.KeyFile)
		}
		return Secret(user), Secret(password), nil
	}
	user, password = Secret(getenv(envWattTimeUser)), Secret(getenv(envWattTimePassword))
	if user == "" || password == "" {
		return "", "", fmt.Errorf("its user is missing; set %s and %s, or give --live-key-file", envWattTimeUser, envWattTimePassword)
	}
	return user, password, nil
}

func (l Live) readKey() (Secret, error) {
	b, err := os.ReadFile(l.KeyFile)
	if err != nil {
		return "", fmt.Errorf("--live-key-file: %w", err)
	}
	return checkKey(strings.TrimSpace(string(b)), "--live-key-file "+l.KeyFile)
}

// checkKey refuses what can be no header's value: net/http's own error would show it.
func checkKey(key, from string) (Secret, error) {
	if key == "" || len(key) > 4096 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%s does not hold a key on one line", from)
	}
	return Secret(key), nil
}
