package mlflow

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A caller that is kept is one that nobody knows: the way to the API and the workspace, no credential.
func TestACallerIsKeptWithoutCredentials(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"Authorization", "Cookie"} {
		r := httptest.NewRequest(http.MethodPost, "/behind/api/2.0/mlflow/runs/create", nil)
		r.Header.Set(secret, "s3cret")
		r.Header.Set("X-Mlflow-Workspace", "team")
		c := CallerOf(r)
		require.True(t, c.HasCredentials(), secret)
		b, err := json.Marshal(c)
		require.NoError(t, err)
		assert.NotContains(t, string(b), "s3cret")
		var kept Caller
		require.NoError(t, json.Unmarshal(b, &kept))
		assert.False(t, kept.HasCredentials())
		assert.Equal(t, "/behind", kept.prefix)
		assert.Equal(t, http.Header{"X-Mlflow-Workspace": {"team"}}, kept.header)
		assert.True(t, c.HasCredentials(), "it keeps its own")

		token := kept.WithToken("t0ken")
		assert.Equal(t, []string{"Bearer t0ken"}, token.header["Authorization"])
		assert.False(t, kept.HasCredentials())
		assert.Empty(t, c.WithToken("t0ken").header["Cookie"])
	}
	var smuggled Caller
	require.NoError(t, json.Unmarshal([]byte(`{"header":{"Authorization":["x"],"Cookie":["x"],"Host":["evil"]},"prefix":"/p"}`), &smuggled))
	assert.Empty(t, smuggled.header)
}

// A token is read anew each time, since others replace it; what is none is said without showing it.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	f := TokenFile(path)
	_, err := f.Token()
	require.ErrorIs(t, err, os.ErrNotExist)
	for content, want := range map[string]string{"first\n": "first", " second ": "second"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		token, err := f.Token()
		require.NoError(t, err)
		assert.Equal(t, want, token)
	}
	for _, content := range []string{"", "\n", "s3cret two", "s3cret\nx: y", "s3crét", strings.Repeat("s3cret", 1<<14)} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := f.Token()
		require.ErrorContains(t, err, path)
		assert.NotContains(t, err.Error(), "s3cr")
	}
}
