package proxy

// Names under which mlflow-emissions-sdk logs, in grams as well. Config.SDKNames writes them for dashboards that were made
// for it: what was emitted for training, which is what the SDK's tracker runs for, and for ten predictions.
const (
	metricSDKEmissions  = "emissions"
	metricSDKInferences = "emissions_per_10_predictions"
)

// isWritten says whether a metric that a client may log itself is one that we would write.
func (p *Proxy) isWritten(key string) bool {
	return p.cfg.SDKNames || key != metricSDKEmissions && key != metricSDKInferences
}
