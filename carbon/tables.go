package carbon

import (
	"cmp"
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
	names   map[string][]string  // codes of the places that a folded name may mean
	spelled map[string]string    // a folded name as it is written
}

// tables reads the embedded files, once. They are part of the program: a fault in them is a fault of the program's.
var tables = sync.OnceValue(func() table {
	t := table{factors: map[string]Intensity{}, places: map[string]Place{}, names: map[string][]string{}, spelled: map[string]string{}}
	for _, r := range rows("emission_factors.csv") {
		t.factors[r.text("source")] = Intensity(r.number("g_per_kwh"))
	}
	for _, r := range rows("countries.csv") {
		t.put(country(r, t.factors), r.text("alpha2"))
	}
	regions := rows("cloud_regions.csv")
	for _, r := range rows("subdivisions.csv") {
		t.put(subdivision(r, zoneOf(r.text("code"), regions)))
	}
	for _, r := range regions {
		t.put(t.region(r), r.text("region"))
	}
	t.index()
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

// mix names the columns of a country's energy sources and the factor that each is multiplied with.
var mix = []struct{ column, factor string }{
	{"coal_twh", "coal"}, {"oil_twh", "petroleum"}, {"gas_twh", "natural_gas"}, {"nuclear_twh", "nuclear"}, {"hydro_twh", "hydroelectricity"},
	{"solar_twh", "solar"}, {"wind_twh", "wind"}, {"bioenergy_twh", "biomass"},
	{"other_renewable_twh", "geothermal"}, // nearly all of what Our World in Data counts there
}

// country reads a country. One without a published figure gets the mean of its mix, weighted by energy.
func country(r row, factors map[string]Intensity) Place {
	p := Place{Code: r.text("alpha3"), Country: r.text("alpha3"), Name: r.text("name"), Level: Country, Zone: r.text("alpha2"),
		Factor: Factor{Year: int(r.number("year")), Basis: Lifecycle, Signal: Average}}
	for _, m := range mix {
		source := strings.ReplaceAll(m.factor, "_", " ")
		if m.column == "other_renewable_twh" {
			source = "other renewables, as " + source
		}
		p.Mix = append(p.Mix, Share{Source: source, TWh: r.number(m.column), Factor: factors[m.factor]})
	}
	// The table has 0 for the Central African Republic, which runs on water: no source of electricity is without
	// emissions over its life, so that is no figure.
	if g := r.number("g_per_kwh"); g > 0 {
		p.Intensity = Intensity(g)
		p.Source = fmt.Sprintf("Our World in Data / Ember %d (lifecycle)", p.Year)
		return p
	}
	if p.Mix.TWh() == 0 {
		panic("carbon/data/countries.csv: neither a figure nor a mix for " + p.Code)
	}
	p.Intensity, p.FromMix = p.Mix.Mean(), true
	p.Source = fmt.Sprintf("mean of the country's mix %d, Our World in Data / Ember, by lifecycle factors", p.Year)
	return p
}

// subdivision reads a state, a province or a zone.
func subdivision(r row, zone string) Place {
	p := Place{Code: r.text("code"), Within: r.text("country"), Country: r.text("country"), Name: r.text("name"), Level: Subdivision, Zone: zone,
		Factor: Factor{Intensity: Intensity(r.number("g_per_kwh")), Year: int(r.number("year")), Basis: Lifecycle, Signal: Average}}
	if p.Code == "US-usa" { // which is not a state: eGRID's figure of all of them, where Our World in Data's is USA
		p.Name = "United States, all states"
	}
	kind := "lifecycle"
	switch source := r.text("source"); {
	case strings.Contains(source, "eGRID"):
		p.Basis, kind = Direct, "direct CO2e"
	case strings.Contains(source, "CO2 only"):
		p.Basis, kind = DirectCO2, "direct"
	}
	p.Source = fmt.Sprintf("%s, %d (%s)", r.text("source"), p.Year, kind)
	return p
}

// zoneOf returns what Electricity Maps calls a subdivision: its own code in Canada and the Nordic countries; China as a
// whole; the zone of the cloud regions in a state of the USA, where a state may lie in several.
func zoneOf(code string, regions []row) string {
	switch country, _, _ := strings.Cut(code, "-"); country {
	case "US":
		for _, r := range regions {
			if zone := regionZone(r); r.text("subdivision") == code && zone != "" {
				return zone
			}
		}
		return ""
	case "CN":
		return "CN"
	}
	return code
}

// regionZone returns what Electricity Maps calls a cloud region's zone.
func regionZone(r row) string {
	if r.text("region") == "westus" { // the table has the Pacific Northwest's, but the region stands in California
		return "US-CAL-CISO"
	}
	return r.text("electricity_maps_zone")
}

// region reads a cloud region. One without a figure of its operator's has that of the state or country it stands in.
func (t table) region(r row) Place {
	p := Place{Code: r.text("provider") + ":" + r.text("region"), Country: r.text("country"), Name: r.text("location"), Level: CloudRegion,
		PUE: r.number("pue"), Zone: regionZone(r)}
	for _, code := range []string{r.text("subdivision"), r.text("country")} {
		if around, ok := t.places[strings.ToLower(code)]; ok {
			p.Within, p.Factor, p.Zone = around.Code, around.Factor, cmp.Or(p.Zone, around.Zone)
			p.Source = fmt.Sprintf("%s, where the region stands: %s", around.Name, around.Source)
			break
		}
	}
	if p.Within == "" {
		panic("carbon/data/cloud_regions.csv: no intensity for " + p.Code)
	}
	if r.text("g_per_kwh") != "" {
		// Google: "average operational gross emissions per unit of energy from the grid", in gCO2eq.
		p.Factor = Factor{Intensity: Intensity(r.number("g_per_kwh")), Year: int(r.number("year")), Basis: Direct, Signal: Average,
			Source: r.text("source") + " (direct)"}
	}
	return p
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
