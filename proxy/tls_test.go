package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTLSUpstream(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization") + r.Host))
	}))
	t.Cleanup(s.Close)
	transport := newTransport(s.Client().Transport.(*http.Transport).TLSClientConfig)
	front := forwardToURL(t, s.URL, func(c *forwardConfig) { c.Transport = transport })
	assert.Equal(t, "Bearer x"+strings.TrimPrefix(s.URL, "https://"), text(t, do(t, "GET", front, http.Header{"Authorization": {"Bearer x"}}, nil)))
}

// pair writes a certificate for 127.0.0.1, signed by its own key, and that key. name is its common name.
func pair(t *testing.T, certFile, keyFile, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// A certificate that is renewed on disk is shown from the next handshake on; while only half of it is there, or what is
// there is none, the former one goes on, with one warning.
func TestARenewedCertificateIsTakenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	var log strings.Builder
	_, err := LoadKeyPair(cert, key, slog.Default())
	assert.ErrorIs(t, err, os.ErrNotExist)
	pair(t, cert, key, "first")
	k, err := LoadKeyPair(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	b := newBench(t, nil)
	server := b.proxy.Server()
	server.TLSConfig = k.ServerTLS()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- b.proxy.Serve(server, l) }()

	logged := func() string {
		k.mu.Lock() // is held while it logs
		defer k.mu.Unlock()
		text := log.String()
		log.Reset()
		return text
	}
	shown := func() string {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		require.NoError(t, err)
		defer c.Close()
		assert.Equal(t, "http/1.1", c.ConnectionState().NegotiatedProtocol, "as MLflow's servers")
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	assert.Equal(t, "first", shown())
	other, otherKey := filepath.Join(dir, "other.pem"), filepath.Join(dir, "other.key")
	pair(t, other, otherKey, "second")
	for _, bad := range []func(){
		func() { require.NoError(t, os.Rename(other, cert)) }, // the key is yet to come
		func() { require.NoError(t, os.WriteFile(cert, []byte("no certificate"), 0o600)) },
		func() { require.NoError(t, os.Remove(cert)) },
	} {
		bad()
		assert.Equal(t, "first", shown())
		assert.Equal(t, "first", shown())
		said := logged()
		assert.Equal(t, 1, strings.Count(said, "level=WARN"), said)
	}
	pair(t, cert, key, "second")
	assert.Equal(t, "second", shown())
	assert.NotContains(t, logged(), "PRIVATE")

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := client.Post("https://"+l.Addr().String()+"/api/2.0/mlflow/runs/create", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	assert.Contains(t, text(t, res), "run1")
	assert.Equal(t, 1, b.open(), "it is metered, too")
	client.CloseIdleConnections()
	require.NoError(t, server.Shutdown(t.Context()))
	require.NoError(t, <-served)
}

// An upstream whose certificate is of an own authority, and that wants to know who calls: both for what is forwarded and for
// our own calls.
func TestAnUpstreamWithOwnAuthorityAndClientCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	pair(t, name("server.pem"), name("server.key"), "server")
	pair(t, name("client.pem"), name("client.key"), "client")
	fake := newFakeMLflow(t)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "client", r.TLS.PeerCertificates[0].Subject.CommonName)
		fake.ServeHTTP(w, r)
	}))
	own, err := tls.LoadX509KeyPair(name("server.pem"), name("server.key"))
	require.NoError(t, err)
	clients := x509.NewCertPool()
	b, err := os.ReadFile(name("client.pem"))
	require.NoError(t, err)
	clients.AppendCertsFromPEM(b)
	up.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	up.StartTLS()
	t.Cleanup(up.Close)
	client, err := LoadKeyPair(name("client.pem"), name("client.key"), slog.Default())
	require.NoError(t, err)
	other, err := LoadKeyPair(name("server.pem"), name("server.key"), slog.Default())
	require.NoError(t, err)

	for _, c := range []struct {
		ca   string
		own  *KeyPair
		code int
	}{{name("server.pem"), client, 200}, {name("server.pem"), nil, 502}, {name("server.pem"), other, 502}, {name("client.pem"), client, 502}, {"", client, 502}} {
		config, err := UpstreamTLS(c.ca, c.own)
		require.NoError(t, err)
		f := newBench(t, func(cfg *Config) {
			u, err := url.Parse(up.URL)
			require.NoError(t, err)
			cfg.Upstream, cfg.UpstreamTLS = u, config
		})
		code, _ := f.post("create", `{"experiment_id":"0"}`)
		assert.Equal(t, c.code, code)
		if code != 200 {
			continue
		}
		f.work()
		code, _ = f.post("update", `{"run_id":"run1","status":"FINISHED"}`)
		assert.Equal(t, 200, code)
		assert.Greater(t, fake.of("run1").metrics[metricEmissions], 0.0)
	}
	_, err = UpstreamTLS(name("client.key"), nil)
	assert.ErrorContains(t, err, "no PEM certificate")
	_, err = UpstreamTLS(name("none"), nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
