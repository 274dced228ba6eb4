package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// The three are to be compared with each other in one run, never by their absolute times:
//
//	go test ./proxy -run '^$' -bench Forward -count 5
//
// bare is httputil.ReverseProxy as it comes, other is any call of MLflow's, metric is a watched one.
func BenchmarkForward(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	}))
	defer upstream.Close()
	u, err := url.Parse(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = maxIdleUpstream
	bare := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }})
	defer bare.Close()
	ours := newBench(b, func(c *Config) { c.Upstream = u })
	for _, c := range []struct{ name, target string }{
		{"bare", bare.URL + "/api/2.0/mlflow/runs/search"},
		{"other", ours.url + "/api/2.0/mlflow/runs/search"},
		{"metric", ours.url + "/api/2.0/mlflow/runs/log-metric"},
	} {
		b.Run(c.name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					res, err := client.Post(c.target, "application/json", strings.NewReader(`{"run_id":"x","key":"loss","value":0.5,"timestamp":1,"step":1}`))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			})
		})
	}
}
