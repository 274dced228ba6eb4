package mlflow

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// CallerFromEnvironment returns a caller with the credentials that MLflow's own client would take: a name and password
// before a token, and what the environment says before what the tracking URI says. getenv is os.Getenv.
func CallerFromEnvironment(getenv func(string) string, trackingURI *url.URL) Caller {
	c := Caller{header: http.Header{}}
	name, password := getenv("MLFLOW_TRACKING_USERNAME"), getenv("MLFLOW_TRACKING_PASSWORD")
	token := getenv("MLFLOW_TRACKING_TOKEN")
	if u := trackingURI.User; u != nil && (name == "" || password == "") && token == "" {
		name = u.Username()
		password, _ = u.Password()
	}
	switch {
	case name != "" && password != "":
		c.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(name+":"+password)))
	case token != "":
		c.header.Set("Authorization", "Bearer "+token)
	}
	return c.WithWorkspace(getenv("MLFLOW_WORKSPACE"))
}

// WithWorkspace returns the caller in a workspace, where one is named and the caller's request named none itself. A
// browser cannot send the header when it opens a page.
func (c Caller) WithWorkspace(name string) Caller {
	if name == "" || c.header.Get("X-Mlflow-Workspace") != "" {
		return c
	}
	c.header = c.header.Clone()
	c.header.Set("X-Mlflow-Workspace", name)
	return c
}

// WithPrefix returns the caller with another path before the API's: that of a server with --static-prefix, whose API
// lies below it.
func (c Caller) WithPrefix(prefix string) Caller {
	c.prefix = prefix
	return c
}

// FromEnvironment returns a client of the server at a tracking URI, and who calls, as MLflow's own client would be by the
// environment: see CallerFromEnvironment and TransportFromEnvironment. What stands in the URI of a user is sent as a header
// only, and never shown.
func FromEnvironment(getenv func(string) string, trackingURI *url.URL) (*Client, Caller, error) {
	transport, err := TransportFromEnvironment(getenv)
	if err != nil {
		return nil, Caller{}, err
	}
	server := *trackingURI
	server.User = nil
	return NewClient(&server, "", transport), CallerFromEnvironment(getenv, trackingURI), nil
}

// TransportFromEnvironment returns how to reach a tracking server as MLflow's own client does: by the machine's proxies,
// and trusting what MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH say.
func TransportFromEnvironment(getenv func(string) string) (http.RoundTripper, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 2 * time.Minute // as long as MLflow's client waits
	if insecure, _ := strconv.ParseBool(getenv("MLFLOW_TRACKING_INSECURE_TLS")); insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	if path := getenv("MLFLOW_TRACKING_SERVER_CERT_PATH"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_TRACKING_SERVER_CERT_PATH: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("MLFLOW_TRACKING_SERVER_CERT_PATH: %s has no certificate in it", path)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return t, nil
}
