package carbon

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// People type names, not codes: in any case, with or without accents, of a country, a state or a cloud's city. A city is
// the grid around it; it must not bring a data centre's PUE with it.
func TestPlacesByName(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"Belgium": "BEL", " belgium ": "BEL", "BELGIË": "BEL", "belgie": "BEL",
		"California": "US-CA", "Frankfurt": "DEU", "frankfurt ": "DEU", "Montreal": "CA-QC", "Montréal": "CA-QC", "Québec": "CA-QC",
		"Zürich": "CHE", "zurich": "CHE", "São Paulo": "BRA", "sao paulo": "BRA", "Côte d’Ivoire": "CIV", "cote d'ivoire": "CIV",
		"Oslo": "NO-NO1", "Stockholm": "SE-SE3", "Southern Sweden": "SE-SE4", "N. Virginia": "US-VA", "Saitama": "JPN",
		"UK": "GBR", "Türkiye": "TUR", "turkiye": "TUR", "United States": "USA", "Mexico": "MEX", "Washington": "US-WA",
		"New South Wales": "AUS", "Hong Kong": "HKG",
		"us-east-1": "aws:us-east-1", "US-East1": "gcp:us-east1", "europe-west1": "gcp:europe-west1", "westeurope": "azure:westeurope",
	} {
		p, err := Locate(name)
		require.NoError(t, err, name)
		assert.Equal(t, code, p.Code, name)
		if p.Level != CloudRegion {
			assert.Zero(t, p.PUE, name)
		}
	}
}

// Georgia is a country and a state, whose electricity differs: taking either for granted would be a guess.
func TestANameOfSeveralPlacesListsThem(t *testing.T) {
	t.Parallel()
	_, err := Locate("georgia")
	assert.EqualError(t, err, `"georgia" may be Georgia (GEO) or Georgia (US-GA); give the code`)
}

func TestTypingErrorsGetTheNearestPlaces(t *testing.T) {
	t.Parallel()
	for typed, suggested := range map[string]string{
		"Belgum": "did you mean Belgium (BEL)?", "Frankfrt": "Frankfurt (DEU)", "useast1": "gcp:us-east1 (South Carolina)",
		"Californa": "California (US-CA)", "BELG": "", "Georgie": "Georgia (GEO), Georgia (US-GA)",
		"Sweeden": "Sweden (SWE)", "TX": "did you mean US-TX (Texas)", "SE3": "did you mean SE-SE3 (Sweden",
	} {
		_, err := Locate(typed)
		require.Error(t, err, typed)
		assert.Contains(t, err.Error(), suggested, typed)
		assert.NotContains(t, err.Error(), "\n", typed)
	}
}

// The four places of the issue and one that nobody knows, with all that must be said of them.
func TestPlacesAndWhatTheyAre(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]struct {
		code   string
		g      float64
		pue    float64
		year   int
		kind   string
		source string
		zone   string
	}{
		"US-CA":        {"US-CA", 179.064, 0, 2023, "direct, average", "EPA eGRID2023 STC2ERTA (lb/MWh x 0.45359237), 2023 (direct CO2e)", "US-CAL-CISO"},
		"us-east-1":    {"aws:us-east-1", 244.758, 1.14, 2023, "direct, average", "Virginia, where the region stands: EPA eGRID2023", "US-MIDA-PJM"},
		"europe-west1": {"gcp:europe-west1", 103.37, 1.09, 2024, "direct, average", "Google Cloud region carbon data 2024 (direct)", "BE"},
		"SE-SE3":       {"SE-SE3", 27, 0, 2025, "lifecycle, average", "ENTSO-E generation per type 2025", "SE-SE3"},
		"CN-BJ":        {"CN-BJ", 555.4, 0, 2023, "direct, CO2 only, average", "MEE and NBS of China", "CN"},
		"BEL":          {"BEL", 138.107, 0, 2023, "lifecycle, average", "Our World in Data / Ember 2023 (lifecycle)", "BE"},
		"US-usa":       {"US-usa", 349.667, 0, 2023, "direct, average", "eGRID", ""},
		"azure:westus": {"azure:westus", 179.064, 1.144, 2023, "direct, average", "California, where the region stands", "US-CAL-CISO"},
		"US-AL":        {"US-AL", 323.854, 0, 2023, "direct, average", "eGRID", ""},
	} {
		p, err := Locate(code)
		require.NoError(t, err, code)
		assert.Equal(t, want.code, p.Code, code)
		assert.Equal(t, want.g, p.Intensity.GPerKWh(), code)
		assert.Equal(t, want.pue, p.PUE, code)
		assert.Equal(t, want.year, p.Year, code)
		assert.Equal(t, want.kind, p.Kind(), code)
		assert.Contains(t, p.Source, want.source, code)
		assert.Equal(t, want.zone, p.Zone, code)
	}
	unknown := Here("")
	assert.Equal(t, "world", unknown.Code)
	assert.Equal(t, 475.0, unknown.Intensity.GPerKWh())
	assert.Contains(t, unknown.Source, "world average, since no location is known")
	assert.Equal(t, "direct, CO2 only, average", unknown.Kind())
	_, err := Locate("Atlantis")
	assert.ErrorContains(t, err, `"Atlantis" is in no table`)
}

// The README's table of places must say what the program does.
func TestTheReadmesPlaces(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	rows := regexp.MustCompile("(?m)^\\| (`[^|]+) \\| [^|]+ \\| ([0-9.]+) \\| ([^|]+) \\| ([0-9.]+) \\|$").FindAllStringSubmatch(string(readme), -1)
	require.Len(t, rows, 7)
	for _, row := range rows {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			p := World()
			if name[1] != "auto" {
				p, err = Locate(name[1])
				require.NoError(t, err)
			}
			assert.Equal(t, row[2], number(p.Intensity.GPerKWh()), name[1])
			assert.Equal(t, row[3], string(p.Basis), name[1])
			assert.Equal(t, row[4], number(max(1, p.PUE)), name[1])
		}
	}
}

func FuzzLocate(f *testing.F) {
	for _, s := range []string{"Belgium", "ΒΈΛΓΙΟ", "\xff\xfe", "Å̷̖", "aws:eu-west-1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, what string) {
		p, err := Locate(what)
		if err == nil && p.Code == "" {
			t.Fatal("a place without a code")
		}
	})
}
