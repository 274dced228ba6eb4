package carbon

import (
	"embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

//go:embed data/*.csv
var data embed.FS

// table is all that the embedded files say.
type table struct {
	factors map[string]Intensity // by energy source, and the world's average
	places  map[string]Place     // by every code, in lower case
}

// tables reads the embedded files, once. They are part of the program: a fault in them is a fault of the program's.
var tables = sync.OnceValue(func() table {
	t := table{factors: map[string]Intensity{}, places: map[string]Place{}}
	for _, r := range rows("emission_factors.csv") {
		t.factors[r.text("source")] = Intensity(r.number("g_per_kwh"))
	}
	for _, r := range rows("countries.csv") {
		p := country(r, t.factors)
		t.put(p, r.text("alpha2"))
	}
	for _, r := range rows("subdivisions.csv") {
		t.put(Place{
			Code: r.text("code"), Name: r.text("name"), Intensity: Intensity(r.number("g_per_kwh")), Year: int(r.number("year")),
			Source: fmt.Sprintf("%s, %s (%s)", r.text("source"), r.text("year"), kind(r.text("source"))),
		})
	}
	for _, r := range rows("cloud_regions.csv") {
		t.put(t.region(r))
	}
	return t
})

func (t table) put(p Place, also ...string) {
	for _, code := range append(also, p.Code) {
		if code == "" {
			continue
		}
		if known, ok := t.places[strings.ToLower(code)]; ok {
			panic(fmt.Sprintf("carbon/data: %s is both %s and %s", code, known.Name, p.Name))
		}
		t.places[strings.ToLower(code)] = p
	}
}

// kind says what a factor of a source counts: the kinds differ, and cannot be compared without saying so.
func kind(source string) string {
	switch {
	case strings.Contains(source, "eGRID"):
		return "direct CO2e"
	case strings.Contains(source, "CO2 only"):
		return "direct"
	}
	return "lifecycle"
}

// mix names the columns of a country's energy sources and the factor that each is multiplied with.
var mix = []struct{ column, factor string }{
	{"coal_twh", "coal"}, {"oil_twh", "petroleum"}, {"gas_twh", "natural_gas"}, {"nuclear_twh", "nuclear"}, {"hydro_twh", "hydroelectricity"},
	{"solar_twh", "solar"}, {"wind_twh", "wind"}, {"bioenergy_twh", "biomass"},
	{"other_renewable_twh", "geothermal"}, // nearly all of what Our World in Data counts there
}

// country reads a country. One without a published figure gets the mean of its mix, weighted by energy.
func country(r row, factors map[string]Intensity) Place {
	p := Place{Code: r.text("alpha3"), Name: r.text("name"), Year: int(r.number("year"))}
	// The table has 0 for the Central African Republic, which runs on water: no source of electricity is without
	// emissions over its life, so that is no figure.
	if g := r.number("g_per_kwh"); g > 0 {
		p.Intensity = Intensity(g)
		p.Source = fmt.Sprintf("Our World in Data / Ember %d (lifecycle)", p.Year)
		return p
	}
	var twh, grams float64
	for _, m := range mix {
		e := r.number(m.column)
		twh += e
		grams += e * factors[m.factor].GPerKWh()
	}
	if twh == 0 {
		panic("carbon/data/countries.csv: neither a figure nor a mix for " + p.Code)
	}
	p.Intensity = Intensity(grams / twh)
	p.Source = fmt.Sprintf("mean of the country's mix %d, Our World in Data / Ember, by lifecycle factors", p.Year)
	return p
}

// region reads a cloud region. One without a figure of its operator's has that of the state or country it stands in.
func (t table) region(r row) Place {
	p := Place{Code: r.text("provider") + ":" + r.text("region"), Name: r.text("location"), PUE: r.number("pue")}
	if r.text("g_per_kwh") != "" {
		p.Intensity, p.Year = Intensity(r.number("g_per_kwh")), int(r.number("year"))
		p.Source = r.text("source")
		return p
	}
	for _, code := range []string{r.text("subdivision"), r.text("country")} {
		if around, ok := t.places[strings.ToLower(code)]; ok {
			p.Intensity, p.Year = around.Intensity, around.Year
			p.Source = fmt.Sprintf("%s, where the region stands: %s", around.Name, around.Source)
			return p
		}
	}
	panic("carbon/data/cloud_regions.csv: no intensity for " + p.Code)
}

// row is a line of a table by column names.
type row struct {
	file   string
	fields map[string]string
}

func rows(file string) []row {
	f, err := data.Open("data/" + file)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		panic(fmt.Sprintf("carbon/data/%s: %v", file, err))
	}
	var out []row
	for _, line := range lines[1:] {
		r := row{file: file, fields: map[string]string{}}
		for i, name := range lines[0] {
			r.fields[name] = line[i]
		}
		out = append(out, r)
	}
	return out
}

func (r row) text(column string) string {
	v, ok := r.fields[column]
	if !ok {
		panic(fmt.Sprintf("carbon/data/%s: no column %s", r.file, column))
	}
	return strings.TrimSpace(v)
}

// number returns a column's value, 0 where it is empty.
func (r row) number(column string) float64 {
	text := r.text(column)
	if text == "" {
		return 0
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("carbon/data/%s: %s: %v", r.file, column, err))
	}
	return v
}
