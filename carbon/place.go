package carbon

import (
	"cmp"
	"maps"
	"slices"
)

// Level says how closely a place is known.
type Level string

// The levels; the first that is known wins, from top to bottom.
const (
	CloudRegion Level = "cloud region"
	Subdivision Level = "subdivision" // a state, a province, a zone of the grid
	Country     Level = "country"
	WholeWorld  Level = "world"
)

// Place is where electricity comes from, and what the tables say of it.
type Place struct {
	Factor
	Code    string // "BEL", "US-CA", "SE-SE3", "gcp:europe-west1", "world"
	Name    string // "Belgium"
	Level   Level
	Within  string  // code of the place around it: of a region its subdivision or country, of a subdivision its country
	Country string  // three letters; empty for the world
	PUE     float64 // of a cloud region; 0 where it is not known
	Zone    string  // what Electricity Maps calls it; empty where that is not known
	Mix     Mix     // of a country, what its electricity is made of
	FromMix bool    // the figure is the mix's mean, since none is published
}

// World returns the world's average, for where no place is known.
func World() Place {
	return Place{Code: "world", Name: "World", Level: WholeWorld, Factor: Factor{
		Intensity: tables().factors["world_average"], Year: 2018, Basis: DirectCO2, Signal: Average,
		Source: "world average, since no location is known (IEA 2019, of 2018)",
	}}
}

// Places lists every place once, by code.
func Places() []Place {
	byCode := map[string]Place{}
	for _, p := range tables().places {
		byCode[p.Code] = p
	}
	return slices.SortedFunc(maps.Values(byCode), func(a, b Place) int { return cmp.Compare(a.Code, b.Code) })
}

// Share is one source of a country's electricity.
type Share struct {
	Source string    // "coal"
	TWh    float64   // generated in the year
	Factor Intensity // emitted per kWh of it, over its life
}

// Mix is what a country's electricity is made of.
type Mix []Share

// Mean is the classic method: the sources' factors, weighted by their share. It is 0 for a mix without energy.
func (m Mix) Mean() Intensity {
	var twh, grams float64
	for _, s := range m {
		twh += s.TWh
		grams += s.TWh * s.Factor.GPerKWh()
	}
	if twh == 0 {
		return 0
	}
	return Intensity(grams / twh)
}

// TWh is the energy of all sources.
func (m Mix) TWh() float64 {
	var twh float64
	for _, s := range m {
		twh += s.TWh
	}
	return twh
}
