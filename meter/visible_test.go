package meter

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVisible(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	root := t.TempDir()
	for _, dir := range []string{"1/fd", "42/fd", "self", "4x"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	f := visible(root)
	assert.Equal(t, "2 processes of this machine", f.Detail)
	assert.Empty(t, f.Remedy)
	assert.Equal(t, Processes, f.Component)
	assert.Equal(t, "processes", f.Component.String())

}
