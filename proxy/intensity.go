package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// Names of what is written about a run's electricity, and about the making of the machine.
const (
	metricFacility   = "emissions/facility_energy_kwh" // with the data centre's overhead; emissions/energy_kwh is the machine's
	metricEmbodied   = "emissions/embodied_g"
	metricSCI        = "emissions/sci_g_per_inference"
	tagIntensityKind = "emissions.intensity_kind" // lifecycle or direct, average or marginal, estimated or not
	tagSlices        = "emissions.slices"         // energy over time, for the command recompute
	tagSCI           = "emissions.sci"            // boundary and method
	tagRecomputed    = "emissions.recomputed"     // the command recompute has put other figures in the place of ours
)

// slicesLimit is how long the tag emissions.slices may be: every server takes that.
const slicesLimit = 5000

// ledgerLimit is how many stretches of time are kept of a phase: more than the tag has room for, and few enough for a model
// that is served for months.
const ledgerLimit = 1000

// electricity is what a run's energy was multiplied with, over all its sessions. It is kept in the state folder, too.
type electricity struct {
	Ledger   carbon.Ledger     `json:"ledger"`       // energy over time, by phase
	Facility float64           `json:"facility_kwh"` // with the data centre's overhead
	Grams    carbon.Mass       `json:"g"`
	Single   *carbon.Intensity `json:"g_per_kwh"` // the one that all of it has; nil where there are several, or none
	Sources  string            `json:"sources"`   // as in the tag emissions.intensity_source
	Kinds    string            `json:"kinds"`     // as in the tag emissions.intensity_kind
}

// electricityOf works out what a record's energy is multiplied with, as far as that is known by now.
func (p *Proxy) electricityOf(record meter.Record) electricity {
	e := electricity{Ledger: carbon.Ledger{}}
	var factors []carbon.Factor // in order of time, each that differs from the one before it
	for _, segment := range record.Segments {
		phase := string(segment.Phase)
		for _, s := range segment.Slices {
			kWh := s.Energy.Total().KWh()
			e.Ledger[phase] = append(e.Ledger[phase], carbon.Use{Start: s.Start, End: s.End, KWh: kWh})
			for _, portion := range p.cfg.Supply.Cut(s.Start, s.End, kWh) {
				e.Facility += portion.KWh * p.cfg.Supply.PUE()
				e.Grams += p.cfg.Supply.Emitted(portion)
				if n := len(factors); n == 0 || factors[n-1] != portion.Factor {
					factors = append(factors, portion.Factor)
				}
			}
		}
	}
	if n := len(record.Segments); len(factors) == 0 && n > 0 { // nothing was used yet
		factors = []carbon.Factor{p.cfg.Supply.At(record.Segments[n-1].End)}
	}
	for i := range factors {
		if factors[i].Intensity != factors[0].Intensity {
			break
		}
		if i == len(factors)-1 {
			e.Single = &factors[0].Intensity
		}
	}
	e.Sources, e.Kinds = carbon.DescribeSources(factors), carbon.DescribeKinds(factors)
	return e
}

// earlierElectricity reads it from what a run's earlier sessions wrote; t are their totals.
func earlierElectricity(r mlflow.Run, t totals) electricity {
	e := electricity{Ledger: carbon.Ledger{}, Grams: t.emissions(), Sources: r.Tags[tagIntensitySource], Kinds: r.Tags[tagIntensityKind]}
	if l, err := carbon.DecodeLedger(r.Tags[tagSlices]); err == nil {
		e.Ledger = l
	}
	if m, ok := r.Metrics[metricFacility]; ok && m.Value >= 0 {
		e.Facility = m.Value
	} else if pue, err := strconv.ParseFloat(r.Tags[tagPUE], 64); err == nil && pue >= 1 {
		e.Facility = pue * t.energy.Total().KWh()
	}
	if g, err := strconv.ParseFloat(r.Tags[tagIntensity], 64); err == nil && g >= 0 {
		single := carbon.Intensity(g) // or the mean of several, which is as good: it is the same where it counts
		e.Single = &single
	}
	return e
}

// plus returns the electricity of an earlier session and a later one.
func (e electricity) plus(later electricity) electricity {
	sum := electricity{Ledger: carbon.Ledger{}, Facility: e.Facility + later.Facility, Grams: e.Grams + later.Grams,
		Sources: joinTexts(e.Sources, later.Sources), Kinds: carbon.JoinKinds(e.Kinds, later.Kinds)}
	switch {
	case e.Facility == 0:
		sum.Single = later.Single
	case e.Single != nil && later.Single != nil && *e.Single == *later.Single || later.Facility == 0:
		sum.Single = e.Single
	}
	for _, l := range []carbon.Ledger{e.Ledger, later.Ledger} {
		for name, uses := range l {
			sum.Ledger[name] = append(sum.Ledger[name], uses...)
		}
	}
	sum.Ledger.Bound(ledgerLimit)
	return sum
}

// joinTexts joins lists of sources, each once.
func joinTexts(texts ...string) string {
	var all []string
	for _, text := range texts {
		for _, part := range strings.Split(text, "; ") {
			if part != "" && !slices.Contains(all, part) {
				all = append(all, part)
			}
		}
	}
	return strings.Join(all, "; ")
}

// intensity returns the figure that holds for the whole run in gCO2e/kWh, or the mean by energy of several.
func (e electricity) intensity() float64 {
	if e.Single != nil {
		return e.Single.GPerKWh()
	}
	if e.Facility == 0 {
		return 0
	}
	return e.Grams.Grams() / e.Facility
}

// machineShare returns which part of the machine's energy a record is; 0 where that is not known.
func machineShare(record meter.Record) float64 {
	if record.Machine <= 0 {
		return 0
	}
	return min(1, record.Energy().Total().Joules()/record.Machine.Joules())
}

// embodiedOf returns a record's part of the making of this machine; 0 where that is not known.
func (p *Proxy) embodiedOf(record meter.Record) carbon.Mass {
	return p.cfg.Embodied.Share(record.Duration(), machineShare(record))
}

// sci is the Software Carbon Intensity of one prediction, in g: ((E x I) + M) per R. Of the run's embodied part the
// predictions carry as much as of its energy.
func (t totals) sci(predictions float64) float64 {
	var part float64
	if all := t.electricity.Ledger.KWh(); all > 0 {
		part = carbon.Ledger{"": t.electricity.Ledger[string(meter.Inference)]}.KWh() / all
	}
	return (t.inference.Grams() + t.embodied.Grams()*part) / predictions
}

// describeSCI says what is inside the boundary, and by which method.
func (p *Proxy) describeSCI(record meter.Record) string {
	return fmt.Sprintf("ISO/IEC 21031:2024, ((E x I) + M) per R with R = one inference, location-based; E: CPU, GPU and RAM of this machine times PUE; "+
		"M: %s, x time metered / lifespan x the run's part of the machine's energy (%.3g); not included: network, storage, other machines",
		p.cfg.Embodied.Describe(), machineShare(record))
}
