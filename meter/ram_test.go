package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRAMModel(t *testing.T) {
	t.Parallel()
	s := newRAMModel()
	e, err := s.Read(Load{Elapsed: 10 * time.Second, MemoryUsed: 4 << 30})
	require.NoError(t, err)
	assert.InDelta(t, 4*0.392*10, e.Joules(), 1e-9)
	e, err = s.Read(Load{Elapsed: 10 * time.Second})
	require.NoError(t, err)
	assert.Zero(t, e)
}
