package carbon

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// listed is a place as lists show it.
type listed struct {
	Code   string   `json:"code"`
	Name   string   `json:"name"`
	Level  Level    `json:"level"`
	Within string   `json:"within,omitempty"`
	G      float64  `json:"g_per_kwh"`
	Year   int      `json:"year"`
	Kind   string   `json:"kind"`
	PUE    *float64 `json:"pue"` // null where it is not known
	Zone   string   `json:"electricity_maps_zone,omitempty"`
	Source string   `json:"source"`
}

func newListed(p Place) listed {
	l := listed{p.Code, p.Name, p.Level, p.Within, p.Intensity.GPerKWh(), p.Year, p.Kind(), nil, p.Zone, p.Source}
	if p.PUE > 0 {
		l.PUE = &p.PUE
	}
	return l
}

// by are the orders that a list may have.
var by = map[string]func(a, b Place) int{
	"code":      func(a, b Place) int { return cmp.Compare(a.Code, b.Code) },
	"name":      func(a, b Place) int { return cmp.Compare(fold(a.Name), fold(b.Name)) },
	"intensity": func(a, b Place) int { return cmp.Compare(a.Intensity, b.Intensity) },
	"year":      func(a, b Place) int { return cmp.Compare(a.Year, b.Year) },
	"level":     func(a, b Place) int { return cmp.Compare(a.Level, b.Level) },
	"pue":       func(a, b Place) int { return cmp.Compare(a.PUE, b.PUE) },
}

// Sort puts places in an order: by code, name, intensity, year, level or pue, the other way round with "-" before it. The
// order of equals is that of their codes.
func Sort(places []Place, order string) error {
	name, down := strings.CutPrefix(order, "-")
	compare, ok := by[name]
	if !ok {
		return fmt.Errorf("--sort: %q is not allowed, only code, name, intensity, year, level or pue, with - before it for the other way round", order)
	}
	slices.SortStableFunc(places, func(a, b Place) int {
		c := compare(a, b)
		if down {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.Code, b.Code))
	})
	return nil
}

// number writes a figure as the tables have it.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// WriteList writes places as "table", "csv" or "json".
func WriteList(w io.Writer, places []Place, format string) error {
	switch format {
	case "json":
		all := make([]listed, 0, len(places))
		for _, p := range places {
			all = append(all, newListed(p))
		}
		return writeJSON(w, all)
	case "csv":
		out := csv.NewWriter(w)
		_ = out.Write([]string{"code", "name", "level", "within", "g_per_kwh", "year", "kind", "pue", "electricity_maps_zone", "source"})
		for _, p := range places {
			pue := ""
			if p.PUE > 0 {
				pue = number(p.PUE)
			}
			_ = out.Write([]string{p.Code, p.Name, string(p.Level), p.Within, number(p.Intensity.GPerKWh()), strconv.Itoa(p.Year), p.Kind(), pue, p.Zone, p.Source})
		}
		out.Flush()
		return out.Error()
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CODE\tNAME\tG/KWH\tYEAR\tKIND\tPUE\tSOURCE")
	for _, p := range places {
		pue := "-"
		if p.PUE > 0 {
			pue = number(p.PUE)
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%d\t%s\t%s\t%s\n", p.Code, p.Name, p.Intensity.GPerKWh(), p.Year, p.Kind(), pue, p.Source)
	}
	return t.Flush()
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// listedShare is a source of electricity as it is shown.
type listedShare struct {
	Source string  `json:"source"`
	TWh    float64 `json:"twh"`
	Share  float64 `json:"share"`
	Factor float64 `json:"g_per_kwh"`
}

// WritePlace writes one place as "table", "csv" or "json": its figure, of a country also its mix, the factor of each source
// and the mean that they give; and the places that lie within it.
func WritePlace(w io.Writer, p Place, format string) error {
	var within []Place
	for _, o := range Places() {
		if o.Within == p.Code || o.Country == p.Code && p.Level == Country && o.Code != p.Code {
			within = append(within, o)
		}
	}
	var shares []listedShare
	if twh := p.Mix.TWh(); twh > 0 {
		for _, s := range p.Mix {
			shares = append(shares, listedShare{s.Source, s.TWh, s.TWh / twh, s.Factor.GPerKWh()})
		}
	}
	switch format {
	case "json":
		out := struct {
			listed
			Published *float64      `json:"published_g_per_kwh,omitempty"`
			Mean      *float64      `json:"mix_mean_g_per_kwh,omitempty"`
			Mix       []listedShare `json:"mix,omitempty"`
			Places    []listed      `json:"places,omitempty"`
		}{listed: newListed(p), Mix: shares}
		if shares != nil {
			mean := p.Mix.Mean().GPerKWh()
			out.Mean = &mean
			if !p.FromMix {
				out.Published = &out.G
			}
		}
		for _, o := range within {
			out.Places = append(out.Places, newListed(o))
		}
		return writeJSON(w, out)
	case "csv":
		return WriteList(w, append([]Place{p}, within...), format)
	}
	if err := WriteList(w, []Place{p}, format); err != nil {
		return err
	}
	if shares != nil {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "\nELECTRICITY %d\tTWH\tSHARE\tG/KWH\t\n", p.Year)
		for _, s := range shares {
			fmt.Fprintf(t, "%s\t%.2f\t%.1f %%\t%.0f\t\n", s.Source, s.TWh, 100*s.Share, s.Factor)
		}
		fmt.Fprintf(t, "weighted mean of the mix\t%.2f\t\t%.1f\t\n", p.Mix.TWh(), p.Mix.Mean().GPerKWh())
		published, used := fmt.Sprintf("%.1f", p.Intensity.GPerKWh()), "the published figure is used"
		if p.FromMix {
			published, used = "none", "the weighted mean is used, since no figure is published"
		}
		fmt.Fprintf(t, "published\t\t\t%s\t\n", published)
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n", used)
	}
	if len(within) > 0 {
		fmt.Fprintln(w)
		return WriteList(w, within, format)
	}
	return nil
}
