package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Admin returns the handler of the admin listener: /healthz (alive), /readyz (the upstream answers; 503 while
// draining), /metrics (Prometheus).
func (p *Proxy) Admin(gather prometheus.Gatherer) http.Handler {
	r := chi.NewRouter()
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { answerText(w, http.StatusOK, "ok") })
	r.Get("/readyz", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case p.draining.Err() != nil:
			answerText(w, http.StatusServiceUnavailable, "draining")
		case !p.upstreamAnswers(r.Context()):
			answerText(w, http.StatusServiceUnavailable, "upstream does not answer")
		default:
			answerText(w, http.StatusOK, "ok")
		}
	})
	r.Handle("/metrics", promhttp.HandlerFor(gather, promhttp.HandlerOpts{}))
	return r
}

func answerText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n"))
}

// upstreamAnswers asks for MLflow's /health. Any answer will do: Databricks has no such page, but it is there.
func (p *Proxy) upstreamAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.cfg.Upstream.JoinPath("health").String(), nil)
	if err != nil {
		return false
	}
	if p.cfg.UpstreamHost != "" {
		req.Host = p.cfg.UpstreamHost
	}
	res, err := p.cfg.Transport.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode < http.StatusInternalServerError
}
