package proxy

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mlflow-emissions-proxy/meter"
)

// metrics are what /metrics shows. Labels come from small fixed sets: nothing of a client's is ever in one.
type metrics struct {
	requests       [kinds]prometheus.Counter
	upstreamErrors prometheus.Counter
	written        prometheus.Counter
	failed         prometheus.Counter
	proxy          *Proxy

	mu   sync.Mutex
	runs meter.Energies // the most that was shown as the runs'
}

var (
	runningDesc   = prometheus.NewDesc("emissions_running_sessions", "Runs that are being metered.", nil, nil)
	unwrittenDesc = prometheus.NewDesc("emissions_unwritten_runs", "Runs that are over and whose figures are not in the server yet.", nil, nil)
	energyDesc    = prometheus.NewDesc("emissions_energy_joules_total",
		"Energy by component and owner: runs, rest (nobody's).", []string{"component", "owner"}, nil)
	// Not a counter: it goes to the runs or to the rest when it is known whose it is.
	pendingDesc   = prometheus.NewDesc("emissions_pending_energy_joules", "Energy by component used since by runs that are about to end.", []string{"component"}, nil)
	intensityDesc = prometheus.NewDesc("emissions_carbon_intensity_grams_per_kwh", "Carbon intensity of this machine's electricity now, in gCO2e per kWh, before PUE.", []string{"location"}, nil)
	pueDesc       = prometheus.NewDesc("emissions_pue", "Power usage effectiveness that energy is multiplied with.", nil, nil)
	sensorDesc    = prometheus.NewDesc("emissions_sensor_energy_joules_total",
		"Energy by component as the sensors read it; the sum over the owners, and what is pending.", []string{"component"}, nil)
)

func newMetrics(reg prometheus.Registerer, p *Proxy) (*metrics, error) {
	m := &metrics{
		proxy:          p,
		upstreamErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "emissions_upstream_errors_total", Help: "Requests that the upstream did not answer."}),
	}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "emissions_requests_total", Help: "Requests by kind."}, []string{"kind"})
	for k := range m.requests {
		m.requests[k] = requests.WithLabelValues(kind(k).String())
	}
	figures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "emissions_figures_total", Help: "Attempts to write a run's figures, by result.",
	}, []string{"result"})
	m.written, m.failed = figures.WithLabelValues("written"), figures.WithLabelValues("failed")
	for _, c := range []prometheus.Collector{requests, m.upstreamErrors, figures, m} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Describe is prometheus.Collector's.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- runningDesc
	ch <- unwrittenDesc
	ch <- energyDesc
	ch <- pendingDesc
	ch <- sensorDesc
	ch <- intensityDesc
	ch <- pueDesc
}

// Collect is prometheus.Collector's. All energies are of the same reading, so that they add up.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.proxy.mu.Lock()
	running := 0
	for _, r := range m.proxy.runs {
		if r.session != nil {
			running++
		}
	}
	unwritten := len(m.proxy.letters)
	m.proxy.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(runningDesc, prometheus.GaugeValue, float64(running))
	ch <- prometheus.MustNewConstMetric(unwrittenDesc, prometheus.GaugeValue, float64(unwritten))
	supply := m.proxy.cfg.Supply
	ch <- prometheus.MustNewConstMetric(intensityDesc, prometheus.GaugeValue, supply.At(time.Now()).Intensity.GPerKWh(), supply.Place().Code)
	ch <- prometheus.MustNewConstMetric(pueDesc, prometheus.GaugeValue, supply.PUE())
	t := m.proxy.cfg.Meter.Totals()
	m.rise(&t)
	for _, c := range []meter.Component{meter.CPU, meter.GPU, meter.RAM} {
		for owner, e := range map[string]meter.Energies{"runs": t.Runs, "rest": t.Rest} {
			ch <- prometheus.MustNewConstMetric(energyDesc, prometheus.CounterValue, e[c].Joules(), c.String(), owner)
		}
		ch <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, t.Pending[c].Joules(), c.String())
		ch <- prometheus.MustNewConstMetric(sensorDesc, prometheus.CounterValue, t.Sensors[c].Joules(), c.String())
	}
}

// rise keeps the runs' counter from falling when what a run was given turns out to be nobody's, as of one that was left:
// it stands still until it is made up for, and what is shown adds up to what the sensors read all the same.
func (m *metrics) rise(t *meter.Totals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, shown := range m.runs {
		if owed := shown - t.Runs[c]; owed > 0 {
			t.Runs[c] += owed
			t.Rest[c] -= owed
		}
	}
	m.runs = t.Runs
}

// SampleDuration makes the histogram of the time that one reading of the sensors takes; it is fed by the meter, which
// is made before the proxy.
func SampleDuration(reg prometheus.Registerer) (func(time.Duration), error) {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "emissions_sample_duration_seconds", Help: "Time that one reading of all sensors took.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 2, 14),
	})
	return func(d time.Duration) { h.Observe(d.Seconds()) }, reg.Register(h)
}
