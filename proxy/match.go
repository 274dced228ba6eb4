package proxy

import (
	"net/http"
	"strings"
)

// kind says which of MLflow's calls a request is. Only these few are watched.
type kind int

const (
	kindOther kind = iota
	kindCreate
	kindUpdate
	kindDelete
	kindRestore
	kindLogMetric
	kindLogBatch
	kindSetTag
	kindLogInputs
	kindTrace // MLflow's client writes a trace
	kindSpans // spans come by OpenTelemetry's protocol
	kinds
)

// names are the last elements of the watched calls' paths, but for spans, which end in "/v1/traces".
var names = [kinds]string{"other", "create", "update", "delete", "restore", "log-metric", "log-batch", "set-tag", "log-inputs",
	"traces", "spans"}

// String returns the kind as it is named in /metrics.
func (k kind) String() string { return names[k] }

// match tells the kind of a request by the suffix of its decoded path: the server decodes the path before it routes,
// and there may be any prefix before it (--static-prefix, an Azure workspace). ui says that the call is under
// /ajax-api/, where MLflow's own pages call. It runs for every request and allocates nothing.
func match(method, path string) (k kind, ui bool) {
	if method != http.MethodPost {
		return kindOther, false
	}
	rest, name, ok := cutLast(path)
	if !ok {
		return kindOther, false
	}
	if name == "traces" && strings.HasSuffix(rest, "/v1") {
		return kindSpans, false
	}
	for i := kindCreate; i < kindSpans; i++ {
		if names[i] == name {
			k = i
		}
	}
	of, since := "/mlflow/runs", "2.0"
	if k == kindTrace {
		of, since = "/mlflow", "3.0"
	}
	if k == kindOther {
		return kindOther, false
	}
	if rest, ok = strings.CutSuffix(rest, of); !ok {
		return kindOther, false
	}
	rest = strings.TrimSuffix(rest, "/preview")
	rest, version, ok := cutLast(rest)
	if !ok || version != since {
		return kindOther, false
	}
	switch {
	case strings.HasSuffix(rest, "/api"):
		return k, false
	case strings.HasSuffix(rest, "/ajax-api"):
		return k, true
	}
	return kindOther, false
}

// cutLast cuts a path before its last slash.
func cutLast(path string) (before, last string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}
