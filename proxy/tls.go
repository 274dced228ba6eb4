package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"
)

// KeyPair is a certificate and its key in files, which may be renewed while the proxy runs. Its methods may be called from
// any goroutine.
type KeyPair struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	seen    [2]stamp // of the files when they were last read
	current *tls.Certificate
}

// stamp tells one content of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
}

// LoadKeyPair reads a PEM certificate, with its chain, and its key.
func LoadKeyPair(certFile, keyFile string, log *slog.Logger) (*KeyPair, error) {
	k := &KeyPair{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if k.seen, err = k.stamps(); err != nil {
		return nil, err
	}
	return k, k.load()
}

func (k *KeyPair) stamps() (s [2]stamp, err error) {
	for i, name := range []string{k.certFile, k.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = stamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

func (k *KeyPair) load() error {
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return err
	}
	k.current = &pair
	return nil
}

// Certificate returns the pair as it is on disk now. It looks at each handshake, which costs a thousand times more. One that
// cannot be read, as between the writing of one file and the other, leaves the former in use.
func (k *KeyPair) Certificate() *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := k.stamps()
	if now == k.seen {
		return k.current
	}
	k.seen = now // what was found wrong is said once
	if err == nil {
		err = k.load()
	}
	if err != nil {
		k.log.Warn("the renewed certificate cannot be used; the former one stays", "certificate", k.certFile, "key", k.keyFile, "error", err)
	} else {
		k.log.Info("certificate renewed", "certificate", k.certFile)
	}
	return k.current
}

// ServerTLS returns the configuration of a listener that shows this pair.
func (k *KeyPair) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.Certificate(), nil },
	}
}

// UpstreamTLS returns the configuration towards the MLflow server: which authorities are trusted, by a file of PEM
// certificates (empty: the system's), and which certificate we show if asked (nil: none).
func UpstreamTLS(caFile string, own *KeyPair) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("no PEM certificate in it")
		}
	}
	if own != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.Certificate(), nil }
	}
	return c, nil
}
