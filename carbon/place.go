package carbon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Place is where electricity comes from.
type Place struct {
	Code      string // "BEL", "US-CA", "SE-SE3", "gcp:europe-west1", "world"
	Name      string // "Belgium"
	Intensity Intensity
	Source    string  // whose figure the intensity is, its year and its kind
	Year      int     // of the figure
	PUE       float64 // of a cloud region; 0 where it is not known
}

// World returns the world's average, for where no place is known.
func World() Place {
	return Place{Code: "world", Name: "World", Intensity: tables().factors["world_average"], Year: 2019,
		Source: "world average, since no location is known (IEA 2019)"}
}

// Locate finds a place by its code, case aside: a country by two or three letters, a state, province or zone, or a cloud
// region. A code that no table has is an error that names the nearest ones.
func Locate(code string) (Place, error) {
	if p, ok := tables().places[strings.ToLower(strings.TrimSpace(code))]; ok {
		return p, nil
	}
	return Place{}, fmt.Errorf("%q is in no table; allowed are a country (BE or BEL), a state, province or zone (US-CA, SE-SE3) "+
		"and a cloud region (gcp:europe-west1, aws:eu-west-1, azure:westeurope)%s", code, suggest(code))
}

// Places lists every place once, by code.
func Places() []Place {
	byCode := map[string]Place{}
	for _, p := range tables().places {
		byCode[p.Code] = p
	}
	return slices.SortedFunc(maps.Values(byCode), func(a, b Place) int { return cmp.Compare(a.Code, b.Code) })
}

// suggest names up to three codes, or names, that are close to a typing error.
func suggest(code string) string {
	wanted := strings.ToLower(strings.TrimSpace(code))
	type near struct {
		code     string
		distance int
	}
	var found []near
	for _, p := range Places() {
		d := min(distance(wanted, strings.ToLower(p.Code)), distance(wanted, strings.ToLower(p.Name)))
		if d <= 1+len(wanted)/4 && d < len(wanted) {
			found = append(found, near{p.Code, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return cmp.Compare(a.distance, b.distance) })
	var codes []string
	for _, n := range found[:min(3, len(found))] {
		codes = append(codes, n.code)
	}
	if codes == nil {
		return ""
	}
	return "; did you mean " + strings.Join(codes, ", ") + "?"
}

// distance is Levenshtein's: how many letters must be put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
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
