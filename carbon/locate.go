package carbon

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

// Locate finds a place by its code or its name, case and accents aside: a country by two or three letters, a state,
// province or zone, a cloud region with or without its provider, or what people call it: "Belgium", "California",
// "Frankfurt". The name of a city is that of the grid around it, for which the tables have a figure; only its code is a
// cloud's region, with the data centre's PUE. What no table has is an error that names the nearest, and what may be
// several places one that lists them.
func Locate(what string) (Place, error) {
	t := tables()
	if p, ok := t.places[strings.ToLower(strings.TrimSpace(what))]; ok {
		return p, nil
	}
	named := t.names[fold(what)]
	switch {
	case len(named) == 1:
		return t.places[strings.ToLower(named[0])], nil
	case len(named) > 1:
		return Place{}, fmt.Errorf("%q may be %s; give the code", what, list(named))
	}
	return Place{}, fmt.Errorf("%q is in no table; allowed are a country (BE, BEL, Belgium), a state, province or zone (US-CA, SE-SE3), "+
		"a cloud region (gcp:europe-west1, aws:eu-west-1, azure:westeurope) and its city (Frankfurt)%s", what, suggest(what))
}

// list shows places as "Georgia (GEO) or Georgia (US-GA)".
func list(codes []string) string {
	var shown []string
	for _, code := range codes {
		shown = append(shown, fmt.Sprintf("%s (%s)", tables().places[strings.ToLower(code)].Name, code))
	}
	last := len(shown) - 1
	return strings.Join(shown[:last], ", ") + " or " + shown[last]
}

// fold makes one of all spellings of a name: without case, accents and punctuation.
func fold(name string) string {
	// A transformer keeps state, so that each call needs its own.
	plain, _, err := transform.String(transform.Chain(norm.NFKD, runes.Remove(runes.In(unicode.Mn)), cases.Fold(), norm.NFC), name)
	if err != nil {
		plain = strings.ToLower(name)
	}
	plain = strings.ReplaceAll(plain, "&", " and ")
	return strings.Join(strings.FieldsFunc(plain, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), " ")
}

// alsoCalled are names that people use and the tables do not.
var alsoCalled = map[string]string{
	"UK": "GBR", "Great Britain": "GBR", "England": "GBR", "Scotland": "GBR", "Wales": "GBR", "Northern Ireland": "GBR",
	"United States of America": "USA", "America": "USA", "The Netherlands": "NLD", "Holland": "NLD",
	"Czech Republic": "CZE", "Türkiye": "TUR", "Korea": "KOR", "Republic of Korea": "KOR", "Viet Nam": "VNM", "Russian Federation": "RUS",
	"Ivory Coast": "CIV", "Cabo Verde": "CPV", "Macedonia": "MKD", "Burma": "MMR", "Swaziland": "SWZ", "Emirates": "ARE",
	"DR Congo": "COD", "Brunei Darussalam": "BRN", "Lao": "LAO", "Brasil": "BRA", "España": "ESP", "Deutschland": "DEU", "België": "BEL", "Belgique": "BEL",
	"Sverige": "SWE", "Norge": "NOR", "Suomi": "FIN", "Österreich": "AUT", "Schweiz": "CHE", "Suisse": "CHE", "Italia": "ITA", "Polska": "POL",
	"Washington State": "US-WA", "Washington DC": "US-DC", "Washington D.C.": "US-DC", "Newfoundland": "CA-NL",
}

// bracketed is what the table's names of the Nordic zones have in brackets: a city, or a part of the country.
var bracketed = regexp.MustCompile(`\((?:[^(),]*, includes )?([^(),]+)\)`)

// index collects what each place is called.
func (t table) index() {
	add := func(name, code string) {
		key := fold(name)
		if key != "" && !slices.Contains(t.names[key], code) {
			t.names[key], t.spelled[key] = append(t.names[key], code), name
		}
	}
	for _, p := range t.places {
		switch p.Level {
		case Country, Subdivision:
			add(p.Name, p.Code)
			if m := bracketed.FindStringSubmatch(p.Name); m != nil {
				add(m[1], p.Code)
			}
		case CloudRegion:
			for _, name := range strings.Split(p.Name, ", ") {
				add(name, p.Within)
			}
		}
	}
	for name, code := range alsoCalled {
		if _, ok := t.places[strings.ToLower(code)]; ok {
			add(name, code)
		}
	}
	for key, codes := range t.names {
		// Of a place and what is around it the name means the closer one: Stockholm is in zone SE3 and in Sweden.
		closer := slices.DeleteFunc(slices.Clone(codes), func(code string) bool {
			return slices.ContainsFunc(codes, func(other string) bool { return t.places[strings.ToLower(other)].Within == code })
		})
		slices.Sort(closer)
		t.names[key] = closer
	}
}

// suggest names up to three places whose code or name is close to a typing error.
func suggest(what string) string {
	wanted := fold(what)
	type near struct {
		shown, code string
		distance    int
	}
	nearest := map[string]near{} // by the code of the place
	consider := func(name, shown, code string) {
		d := distance([]rune(wanted), []rune(name))
		if d > 1+len(wanted)/4 || d >= len(wanted) {
			return
		}
		if known, ok := nearest[code]; !ok || cmp.Or(cmp.Compare(d, known.distance), cmp.Compare(shown, known.shown)) < 0 {
			nearest[code] = near{shown, code, d}
		}
	}
	t := tables()
	for name, codes := range t.names {
		for _, code := range codes {
			consider(name, fmt.Sprintf("%s (%s)", t.spelled[name], code), code)
		}
	}
	for code, p := range t.places { // also by the codes that have no provider, or two letters, or no country before them
		shown := fmt.Sprintf("%s (%s)", p.Code, p.Name)
		consider(fold(code), shown, p.Code)
		if _, within, ok := strings.Cut(code, "-"); ok && p.Level == Subdivision {
			consider(within, shown, p.Code)
		}
	}
	found := slices.SortedFunc(maps.Values(nearest), func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.code, b.code))
	})
	var shown []string
	for _, n := range found[:min(3, len(found))] {
		shown = append(shown, n.shown)
	}
	if shown == nil {
		return ""
	}
	return "; did you mean " + strings.Join(shown, ", ") + "?"
}

// distance is Levenshtein's: how many letters must be put in, taken out or changed.
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j := range b {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
