package mlflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
)

// secrets are the headers of a Caller that say who calls.
var secrets = []string{"Authorization", "Cookie"}

// HasCredentials says whether the caller said who it is.
func (c Caller) HasCredentials() bool {
	for _, name := range secrets {
		if len(c.header[name]) > 0 {
			return true
		}
	}
	return false
}

// WithToken returns the caller with a bearer token in place of what it said of itself.
func (c Caller) WithToken(token string) Caller {
	c = c.Anonymous()
	c.header["Authorization"] = []string{"Bearer " + token}
	return c
}

// Anonymous returns the caller without what it said of itself.
func (c Caller) Anonymous() Caller {
	header := http.Header{}
	maps.Copy(header, c.header)
	for _, name := range secrets {
		delete(header, name)
	}
	return Caller{header: header, prefix: c.prefix}
}

// keptCaller is what may be kept of a caller: how it reached the API, and in which workspace.
type keptCaller struct {
	Header http.Header `json:"header,omitempty"`
	Prefix string      `json:"prefix,omitempty"`
}

// MarshalJSON is json.Marshaler's: no credential is written.
func (c Caller) MarshalJSON() ([]byte, error) {
	return json.Marshal(keptCaller{Header: c.Anonymous().header, Prefix: c.prefix})
}

// UnmarshalJSON is json.Unmarshaler's: no credential is read, and no other header than those of a Caller.
func (c *Caller) UnmarshalJSON(b []byte) error {
	var k keptCaller
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	*c = Caller{header: http.Header{}, prefix: k.Prefix}
	for _, name := range credentials {
		if v := k.Header[name]; len(v) > 0 {
			c.header[name] = v
		}
	}
	*c = c.Anonymous()
	return nil
}

// TokenFile is a file that holds a bearer token, which may be replaced at any time.
type TokenFile string

// maxToken is longer than any token that a server takes in a header.
const maxToken = 64 << 10

// Token reads the token as it is now. No error shows what is in the file.
func (f TokenFile) Token() (string, error) {
	b, err := os.ReadFile(string(f))
	if err != nil {
		return "", fmt.Errorf("read the upstream's token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	switch {
	case token == "":
		err = errors.New("it is empty")
	case len(token) > maxToken:
		err = fmt.Errorf("it is longer than %d bytes", maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		err = errors.New("it is to hold one token, without spaces or line breaks in it")
	}
	if err != nil {
		return "", fmt.Errorf("read the upstream's token: %s: %w", string(f), err)
	}
	return token, nil
}
