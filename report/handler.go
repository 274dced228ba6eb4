package report

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"golang.org/x/sync/errgroup"

	"mlflow-emissions-proxy/mlflow"
)

// Config is what the page needs.
type Config struct {
	Client *mlflow.Client
	// Prefix is MLflow's --static-prefix, below which its API and its pages lie.
	Prefix string
	// Accuracy returns a run's accuracy as the proxy took it, or would.
	Accuracy func(mlflow.Run) (percent float64, key string, ok bool)
	Logger   *slog.Logger // nil: slog.Default
}

const (
	// pageRuns is how many runs the page shows at most: the latest that the filter finds. A browser still scrolls so many
	// lines, and the page says that there are more.
	pageRuns = 2000
	// pageExperiments is how many experiments are offered to choose from.
	pageExperiments = 1000
	// loadTimeout is how long the MLflow server may take for all that a page needs.
	loadTimeout = 60 * time.Second
)

// Handler returns what answers under /emissions/: the page, its JSON and CSV, and static files. All that it shows is
// read with the credentials of whoever asks.
func Handler(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	h := &handler{cfg: cfg}
	r := chi.NewRouter()
	r.Use(h.recovered, guarded, middleware.Compress(4))
	r.Route("/emissions", func(r chi.Router) {
		r.Use(middleware.GetHead)
		r.Get("/", h.page)
		r.Get("/runs.csv", h.csv)
		r.Get("/api/experiments/{id}/runs", h.runs)
		r.Get("/api/runs/{id}/curve", h.curve)
		r.Get("/static/{name}", serveStatic)
	})
	return r
}

// guarded sets the headers that keep what others wrote into runs from becoming a program: scripts and styles come from
// our own files only, and nothing is asked of any other server.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // it is one caller's
		next.ServeHTTP(w, r)
	})
}

type handler struct{ cfg Config }

// recovered answers for a fault of ours, and logs where it was.
func (h *handler) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if fault := recover(); fault != nil {
				h.cfg.Logger.Error("fault in the page", "path", r.URL.Path, "fault", fault, "stack", string(debug.Stack()))
				refuse(w, http.StatusInternalServerError, "", "mlflow-emissions-proxy: a fault of the page's own; its log says where")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// source is where and as whom a request reads.
func (h *handler) source(r *http.Request, up string) Source {
	workspace := r.URL.Query().Get("workspace")
	return Source{
		Client:   h.cfg.Client,
		Caller:   mlflow.CallerOf(r).WithPrefix(h.cfg.Prefix).WithWorkspace(workspace),
		Accuracy: h.cfg.Accuracy,
		RunURL:   RunURLs(up+strings.TrimPrefix(h.cfg.Prefix+"/", "/"), workspace),
	}
}

// page answers with the comparison, or with the experiments to choose from.
func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	v := viewOf(r.URL.Query())
	v.Limit = pageRuns
	ctx, cancel := context.WithTimeout(r.Context(), loadTimeout)
	defer cancel()
	source := h.source(r, "../")
	p := pageData{View: v, Home: "../" + strings.TrimPrefix(h.cfg.Prefix+"/", "/")}
	var faultOfRuns error
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		p.Experiments, p.MoreExperiments, err = source.Client.SearchExperiments(groupCtx, source.Caller, pageExperiments)
		return err
	})
	if len(v.Experiments) > 0 {
		group.Go(func() error {
			// Apart, so that a filter that MLflow does not understand leaves the rest of the page as it is.
			p.Comparison, faultOfRuns = Load(groupCtx, source, v.Query)
			return nil
		})
	}
	err := group.Wait()
	if err == nil {
		err = faultOfRuns
	}
	status := http.StatusOK
	if err != nil {
		p.Fault, status = h.fault(w, r, err)
		p.FilterFault = status == http.StatusBadRequest && v.Filter != ""
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := p.write(w); err != nil {
		h.cfg.Logger.Debug("the page was not read to its end", "error", err)
	}
}

// csv answers with the chosen runs as a file.
func (h *handler) csv(w http.ResponseWriter, r *http.Request) {
	v := viewOf(r.URL.Query())
	c, ok := h.load(w, r, v.Query)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="emissions.csv"`)
	_ = c.WriteCSV(w)
}

// runs answers with an experiment's runs as JSON: all of them, or at most max_results, from page_token on.
func (h *handler) runs(w http.ResponseWriter, r *http.Request) {
	v := viewOf(r.URL.Query())
	v.Experiments = []string{chi.URLParam(r, "id")}
	if n := r.URL.Query().Get("max_results"); n != "" {
		limit, err := strconv.Atoi(n)
		if err != nil || limit < 1 {
			refuse(w, http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "max_results must be a number of at least 1")
			return
		}
		v.Limit = limit
	}
	if c, ok := h.load(w, r, v.Query); ok {
		w.Header().Set("Content-Type", "application/json")
		_ = c.WriteJSON(w)
	}
}

// curve answers with what a run had emitted when: pairs of ms since 1970 and grams.
func (h *handler) curve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), loadTimeout)
	defer cancel()
	source := h.source(r, "")
	values, err := source.Client.MetricHistory(ctx, source.Caller, chi.URLParam(r, "id"), metricEmissions)
	if err != nil {
		message, status := h.fault(w, r, err)
		refuse(w, status, "", message)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(curveOf(values))
}

// load reads runs for an answer that is no page, and answers itself if it cannot.
func (h *handler) load(w http.ResponseWriter, r *http.Request, q Query) (Comparison, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), loadTimeout)
	defer cancel()
	up := "/" // an address in a file is not relative to any page
	if host := r.Host; host != "" {
		scheme := "http"
		if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
			scheme = "https"
		}
		up = scheme + "://" + host + "/"
	}
	c, err := Load(ctx, h.source(r, up), q)
	if err != nil {
		message, status := h.fault(w, r, err)
		refuse(w, status, "", message)
		return Comparison{}, false
	}
	return c, true
}

// fault says what went wrong in MLflow's own words, with its own status. A browser that must show who it is for is asked
// to by MLflow's own challenge.
func (h *handler) fault(w http.ResponseWriter, r *http.Request, err error) (message string, status int) {
	var refused *mlflow.APIError
	switch {
	case errors.As(err, &refused):
		if refused.Challenge != "" {
			w.Header().Set("WWW-Authenticate", refused.Challenge)
		}
		if refused.StatusCode < 400 {
			return "MLflow answers with a redirect; give the server's own address as --upstream.", http.StatusBadGateway
		}
		if refused.Message == "" {
			return "MLflow answered " + strconv.Itoa(refused.StatusCode) + " " + http.StatusText(refused.StatusCode) + ".", refused.StatusCode
		}
		return refused.Message, refused.StatusCode
	case errors.Is(err, context.DeadlineExceeded):
		return "The MLflow server took more than " + loadTimeout.String() + "; choose fewer experiments, or a filter.", http.StatusGatewayTimeout
	}
	if r.Context().Err() == nil {
		h.cfg.Logger.Warn("the page could not read MLflow", "error", err)
	}
	return "The MLflow server cannot be reached; is it running?", http.StatusBadGateway
}

// refuse answers in MLflow's error form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	if code == "" {
		code = strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "_"))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error_code": code, "message": message})
}

// curvePoints is how many points of a curve are drawn at most.
const curvePoints = 400

// curveOf thins a curve out. Its last point is always kept.
func curveOf(values []mlflow.Metric) [][2]float64 {
	points := [][2]float64{}
	step := len(values)/curvePoints + 1
	for i, m := range values {
		if v := Value(m.Value); v.Known() && (i%step == 0 || i == len(values)-1) {
			points = append(points, [2]float64{float64(m.Timestamp), m.Value})
		}
	}
	return points
}
