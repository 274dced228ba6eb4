package proxy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// Names of what is written into a run, and of what users may set on it.
const (
	metricEmissions    = "emissions_g"
	metricAccuracy     = "accuracy_per_emission"
	metricInferences   = "emission_per_10_inferences"
	metricEnergy       = "emissions/energy_kwh"
	metricDuration     = "emissions/duration_s"
	metricTraining     = "emissions/training_g"
	metricInference    = "emissions/inference_g"
	metricLow          = "emissions/low_g"
	metricHigh         = "emissions/high_g"
	metricInferLow     = "emissions/inference_low_g"
	metricInferHigh    = "emissions/inference_high_g"
	tagStatus          = "emissions.status"
	tagScope           = "emissions.scope"
	tagUnit            = "emissions.unit" // what of the machine was the run's: its process, its launcher, its control group
	tagMethod          = "emissions.method."
	tagIntensity       = "emissions.intensity"
	tagIntensitySource = "emissions.intensity_source"
	tagLocation        = "emissions.location"
	tagPUE             = "emissions.pue"
	tagHost            = "emissions.host"
	tagAccuracyKey     = "emissions.accuracy_key"
	tagInferences      = "emissions.inferences"
	tagInferenceSource = "emissions.inferences_source"
	tagInferenceMethod = "emissions.inference_method" // how finely the inference phase could be told from the rest
	tagVersion         = "emissions.version"
	tagClientMetrics   = "emissions.client_metrics" // which of the three names are the client's own
	tagPhase           = "emissions.phase"
	tagAccuracyMetric  = "emissions.accuracy_metric"
	tagSkip            = "emissions.skip"
	tagParent          = "mlflow.parentRunId"
	tagName            = "mlflow.runName"
)

// Values of the tag emissions.status begin so; what is partial goes on with the reasons, and of a resumed run with
// which part of it they are about.
const (
	statusMeasured = "measured"
	statusPartial  = "partial: "
	beforeResumed  = "before it was resumed: "
	sinceResumed   = "since it was resumed: "
)

// methodReadings is the tag emissions.inference_method where the phase lasted long enough for the sensors.
const methodReadings = "readings"

// ratios are the metrics that a client may log under the same name; its own are kept.
var ratios = []string{metricEmissions, metricAccuracy, metricInferences, metricSDKEmissions, metricSDKInferences}

// metricComponent returns the name of a component's energy, in kWh.
func metricComponent(c meter.Component) string { return "emissions/" + c.String() + "_energy_kwh" }

// totals are a run's figures over all its sessions, earlier ones included.
type totals struct {
	energy              meter.Energies
	duration            time.Duration
	training, inference carbon.Mass
	low, high           carbon.Mass
	electricity         electricity
	embodied            carbon.Mass // of making this machine
	inferred            bool        // an inference phase is known
	untrained           bool        // what the training took is not known
	predicting          time.Duration
	inferLow, inferHigh carbon.Mass
}

func (t totals) emissions() carbon.Mass { return t.training + t.inference }

// plus returns the sum of two sessions' totals.
func (t totals) plus(o totals) totals {
	t.energy.Add(o.energy)
	t.duration += o.duration
	t.training += o.training
	t.inference += o.inference
	t.low += o.low
	t.high += o.high
	t.electricity = t.electricity.plus(o.electricity)
	t.embodied += o.embodied
	t.inferred = t.inferred || o.inferred
	t.untrained = t.untrained || o.untrained
	t.predicting += o.predicting
	t.inferLow += o.inferLow
	t.inferHigh += o.inferHigh
	return t
}

// reckon turns a record's joules into grams, slice by slice, since the intensity may change over time.
func (p *Proxy) reckon(r meter.Record) totals {
	t := totals{energy: r.Energy(), duration: r.Duration(), electricity: p.electricityOf(r), embodied: p.embodiedOf(r)}
	for _, segment := range r.Segments {
		if segment.Phase == meter.Inference {
			t.inferred = true
			t.predicting += segment.Duration()
		}
	}
	brief := t.brief()
	for _, segment := range r.Segments {
		for _, s := range segment.Slices {
			grams := func(e meter.Energy) carbon.Mass { return p.cfg.Supply.Emissions(s.Start, s.End, e.KWh()) }
			low, high := p.bounds(s.Energy)
			t.low += grams(low)
			t.high += grams(high)
			if segment.Phase != meter.Inference {
				t.training += grams(s.Energy.Total())
				continue
			}
			t.inference += grams(s.Energy.Total())
			if brief {
				low, _ = p.bounds(s.Energy.Times(briefLow))
				_, high = p.bounds(s.Energy.Times(briefHigh(t.predicting)))
			}
			t.inferLow += grams(low)
			t.inferHigh += grams(high)
		}
	}
	return t
}

// brief says that the run predicted for a shorter time than the sensors can tell apart: the figure is its CPU time, times
// the power of that second.
func (t totals) brief() bool {
	return t.inferred && t.predicting > 0 && t.predicting < meter.Resolution
}

// What is known of a brief phase: its CPU seconds may take 1.5 times less or more power than those around them, the
// spread between instructions; a device may have rested, or have worked just then for the whole second.
var briefLow = meter.Factors{meter.CPU: 1 / 1.5, meter.GPU: 0, meter.RAM: 1}

func briefHigh(d time.Duration) meter.Factors {
	return meter.Factors{meter.CPU: 1.5, meter.GPU: max(1, time.Second.Seconds()/d.Seconds()), meter.RAM: 1}
}

// bounds returns the interval in which the true energy lies, by the methods' known errors.
func (p *Proxy) bounds(e meter.Energies) (low, high meter.Energy) {
	for c, joules := range e {
		if _, b, ok := p.cfg.Meter.Method(meter.Component(c)); ok {
			low += joules * meter.Energy(b.Low)
			high += joules * meter.Energy(b.High)
		}
	}
	return low, high
}

// earlier reads the totals of a run's earlier sessions from what they wrote into it.
func earlier(r mlflow.Run) totals {
	if r.Tags[tagVersion] == "" { // not ours
		return totals{}
	}
	value := func(key string) float64 {
		if v := r.Metrics[key].Value; !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
		return 0
	}
	var t totals
	for _, c := range []meter.Component{meter.CPU, meter.GPU, meter.RAM} {
		t.energy[c] = meter.FromKWh(value(metricComponent(c)))
	}
	t.duration = time.Duration(value(metricDuration) * float64(time.Second))
	_, t.inferred = r.Metrics[metricInference]
	switch {
	case t.inferred:
		t.training, t.inference = carbon.Mass(value(metricTraining)), carbon.Mass(value(metricInference))
		_, trained := r.Metrics[metricTraining]
		t.untrained = !trained
	case slices.Contains(clientsMetrics(r.Tags), metricEmissions):
		// What stands under this name is not ours: it follows from the energy, by the intensity of that time.
		intensity, _ := strconv.ParseFloat(r.Tags[tagIntensity], 64)
		pue, _ := strconv.ParseFloat(r.Tags[tagPUE], 64)
		t.training = carbon.Intensity(intensity).Emitted(pue * t.energy.Total().KWh())
	default:
		t.training = carbon.Mass(value(metricEmissions))
		// A crash leaves only the curve, whose step is the time metered. To go on before its end would be to stay unseen:
		// MLflow shows the value of the largest step.
		t.duration = max(t.duration, time.Duration(r.Metrics[metricEmissions].Step)*time.Second)
	}
	t.low, t.high = carbon.Mass(value(metricLow)), carbon.Mass(value(metricHigh))
	t.inferLow, t.inferHigh = carbon.Mass(value(metricInferLow)), carbon.Mass(value(metricInferHigh))
	if t.inferred && r.Tags[tagInferenceMethod] == methodReadings {
		t.predicting = meter.Resolution // at least
	}
	t.electricity, t.embodied = earlierElectricity(r, t), carbon.Mass(value(metricEmbodied))
	return t
}

// clientsMetrics reads the tag that names which of our metrics are the client's own.
func clientsMetrics(tags map[string]string) []string {
	return strings.Split(tags[tagClientMetrics], ", ")
}

// figures is all that is written into a run at one moment.
type figures struct {
	metrics []mlflow.Metric
	tags    []mlflow.Tag
	values  map[string]float64 // what was written under the names of ratios
}

// figuresOf works out what to write. now is a run's own record in MLflow, for its accuracy and the user's tags; it
// is nil where it could not be read, and then the ratios that need it are left out.
func (p *Proxy) figuresOf(r *run, record meter.Record, now *mlflow.Run, at time.Time) figures {
	t := r.base.plus(p.reckon(record))
	f := figures{values: map[string]float64{}}
	step, stamp := r.stepAt(t.duration, at)
	metricAt := func(step int64, key string, v float64) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			f.metrics = append(f.metrics, mlflow.Metric{Key: key, Value: v, Timestamp: stamp, Step: step})
		}
	}
	metric := func(key string, v float64) { metricAt(step, key, v) }
	tag := func(key, value string) { f.tags = append(f.tags, mlflow.Tag{Key: key, Value: value}) }
	mine := func(key string, v float64) {
		if r.isClients(key) || !p.isWritten(key) {
			return
		}
		f.values[key] = v
		if key == metricEmissions { // a curve
			metric(key, v)
		} else { // at no step, which would hide what the client logs under this name later
			metricAt(0, key, v)
		}
	}

	if !p.knows(r, record) {
		tag(tagStatus, "unmeasured: "+cmp.Or(p.cfg.Meter.WhyNot(meter.CPU), record.Gaps[meter.CPU].Why, "no sensor could be read"))
		f.tags = append(f.tags, p.origin()...)
		return f
	}
	mine(metricEmissions, t.emissions().Grams())
	mine(metricSDKEmissions, t.training.Grams())
	metric(metricEnergy, t.energy.Total().KWh())
	for _, c := range []meter.Component{meter.CPU, meter.GPU, meter.RAM} {
		if p.isRead(r, record, c) {
			metric(metricComponent(c), t.energy[c].KWh())
		}
		if name, _, ok := p.cfg.Meter.Method(c); ok {
			tag(tagMethod+c.String(), name)
		} else {
			tag(tagMethod+c.String(), "none: "+p.cfg.Meter.WhyNot(c))
		}
	}
	if name, _, ok := p.cfg.Meter.Method(meter.Machine); ok {
		tag(tagMethod+meter.Machine.String(), name)
	}
	metric(metricFacility, t.electricity.Facility)
	metric(metricDuration, t.duration.Seconds())
	if t.inferred {
		if !t.untrained {
			metric(metricTraining, t.training.Grams())
		}
		metric(metricInference, t.inference.Grams())
		metric(metricInferLow, t.inferLow.Grams())
		metric(metricInferHigh, t.inferHigh.Grams())
		if t.brief() {
			tag(tagInferenceMethod, fmt.Sprintf("CPU time x power of that second: %.3g ms are less than the sensors can tell apart", t.predicting.Seconds()*1000))
		} else {
			tag(tagInferenceMethod, methodReadings)
		}
	}
	metric(metricLow, t.low.Grams())
	metric(metricHigh, t.high.Grams())

	if now != nil {
		r.wanted = p.wantedOf(*now)
		if v, key, ok := p.accuracyOf(*now); ok {
			tag(tagAccuracyKey, key)
			if t.training > 0 && !r.trainedElsewhere(*now) {
				mine(metricAccuracy, v/t.training.Grams())
			}
		}
		if count, source, ok := r.inferences(*now); ok && t.inferred {
			tag(tagInferenceSource, source)
			if source != sourceTag {
				r.told = append(r.told, formatCount(count))
				tag(tagInferences, formatCount(count))
			} else if r.word != "" && r.word != now.Tags[tagInferences] { // ours was written over the user's
				tag(tagInferences, r.word)
			}
			if t.inference > 0 {
				mine(metricInferences, 10*t.inference.Grams()/count)
				mine(metricSDKInferences, 10*t.inference.Grams()/count)
			}
			if t.embodied > 0 {
				metric(metricSCI, t.sci(count))
			}
		}
	}

	tag(tagStatus, r.status(record))
	tag(tagScope, string(record.Scope))
	if record.Unit != "" {
		tag(tagUnit, string(record.Unit))
	}
	tag(tagIntensity, strconv.FormatFloat(t.electricity.intensity(), 'f', -1, 64))
	tag(tagIntensitySource, t.electricity.Sources)
	tag(tagIntensityKind, t.electricity.Kinds)
	tag(tagSlices, t.electricity.Ledger.Encode(slicesLimit))
	if t.embodied > 0 {
		metric(metricEmbodied, t.embodied.Grams())
		tag(tagSCI, p.describeSCI(record))
	}
	tag(tagLocation, p.cfg.Supply.Place().Code)
	tag(tagPUE, strconv.FormatFloat(p.cfg.Supply.PUE(), 'f', -1, 64))
	if kept := p.clientsOwn(r); kept != "" {
		tag(tagClientMetrics, kept)
	}
	f.tags = append(f.tags, p.origin()...)
	return f
}

// formatCount writes a number of predictions as in the tag emissions.inferences.
func formatCount(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// isRead says whether anything is known of what a run used of a component: of what was never read, 0 J would pass for
// measured.
func (p *Proxy) isRead(r *run, record meter.Record, c meter.Component) bool {
	_, _, ok := p.cfg.Meter.Method(c)
	return ok && record.Coverage(c) > 0 || r.base.energy[c] > 0
}

// knows says whether anything is known of what a run used at all.
func (p *Proxy) knows(r *run, record meter.Record) bool {
	return p.isRead(r, record, meter.CPU) || p.isRead(r, record, meter.GPU) || p.isRead(r, record, meter.RAM)
}

// origin says which machine and which version metered.
func (p *Proxy) origin() []mlflow.Tag {
	return []mlflow.Tag{{Key: tagHost, Value: p.cfg.Host}, {Key: tagVersion, Value: p.cfg.Version}}
}

// accuracyOf picks a run's accuracy in percent: by the run's own tag, by the flag, or by the usual names.
func (p *Proxy) accuracyOf(r mlflow.Run) (percent float64, key string, ok bool) {
	return accuracy(r, p.wantedOf(r))
}

// wantedOf returns the keys that the user names as a run's accuracy; none for the usual names.
func (p *Proxy) wantedOf(r mlflow.Run) []string {
	if key := r.Tags[tagAccuracyMetric]; key != "" {
		return []string{key}
	}
	return p.cfg.AccuracyMetrics
}

// trainedElsewhere says of a run that it only evaluates a model of another run: what it emitted is not what the training
// took.
func (r *run) trainedElsewhere(now mlflow.Run) bool {
	return r.evaluated > 0 && len(now.ModelInputs) > 0 && len(now.ModelOutputs) == 0
}

// gapsOf says which components were not read all the time, for what share of it they were, and why not.
func gapsOf(record meter.Record) (said []string) {
	reasons := map[string]bool{}
	for _, c := range []meter.Component{meter.CPU, meter.GPU, meter.RAM} {
		gap := record.Gaps[c]
		if gap.For <= 0 || reasons[gap.Why] {
			continue
		}
		reasons[gap.Why] = true // what befell the whole machine is said once
		said = append(said, fmt.Sprintf("%s covered for %.3g %% of the time (%s)", c, 100*record.Coverage(c), gap.Why))
	}
	return said
}

// status says how much of the run was measured: of each component that was not read all the time, for what share of
// it, and why.
func (r *run) status(record meter.Record) string {
	partly := gapsOf(record)
	if r.partial != "" {
		partly = append(partly, r.partial)
	}
	if len(partly) == 0 {
		return statusMeasured
	}
	return statusPartial + strings.Join(partly, "; ")
}
