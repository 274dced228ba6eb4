package proxy

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newStore(t testing.TB) (*Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s, err := OpenStore(t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s, &log
}

// What was kept last is what is found, and nobody else can read it.
func TestStore(t *testing.T) {
	t.Parallel()
	s, log := newStore(t)
	assert.Nil(t, s.load())
	for i := range 3 {
		require.NoError(t, s.save(fmt.Append(nil, i)))
		assert.Equal(t, fmt.Sprint(i), string(s.load()))
	}
	assert.Empty(t, log)
	for _, name := range []string{storeFile, storeBefore, storeLock} {
		info, err := os.Stat(s.path(name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	assert.NoFileExists(t, s.path(storeNew))
}

// A file that is damaged, cut off, of another version or nobody's is put aside with a warning, and the one before it is
// taken; a crash between two renames leaves that one, too.
func TestStoreDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"a bit":    func(path string) error { return change(path, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }) },
		"cut off":  func(path string) error { return change(path, func(b []byte) []byte { return b[:len(b)-3] }) },
		"empty":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"zeros":    func(path string) error { return os.WriteFile(path, make([]byte, 4096), 0o600) },
		"foreign":  func(path string) error { return os.WriteFile(path, []byte(`{"runs":[]}`), 0o600) },
		"a folder": func(path string) error { _ = os.Remove(path); return os.Mkdir(path, 0o700) },
		"another version": func(path string) error {
			return change(path, func(b []byte) []byte { return bytes.Replace(b, []byte(" 1 sha"), []byte(" 2 sha"), 1) })
		},
	} {
		s, log := newStore(t)
		require.NoError(t, s.save([]byte("the one before")))
		require.NoError(t, s.save([]byte("the last one")))
		require.NoError(t, damage(s.path(storeFile)), name)
		assert.Equal(t, "the one before", string(s.load()), name)
		assert.Contains(t, log.String(), "put aside", name)
		_, err := os.Stat(s.path(storeAside))
		require.NoError(t, err, name)

		require.NoError(t, s.save([]byte("next")))
		assert.Equal(t, "next", string(s.load()), name)
	}
	s, _ := newStore(t)
	require.NoError(t, s.save([]byte("kept")))
	require.NoError(t, os.Rename(s.path(storeFile), s.path(storeBefore)))
	assert.Equal(t, "kept", string(s.load()))
}

func change(path string, how func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, how(b), 0o600)
}

// Two proxies would undo each other's work: the second is told which folder it is, and who has it.
func TestStoreInUse(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	_, err := OpenStore(s.dir, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, s.dir)
	require.ErrorContains(t, err, fmt.Sprintf("in use by another proxy (pid %d); stop that one, or give this one a folder of its own", os.Getpid()))
	require.NoError(t, s.Close())
	again, err := OpenStore(s.dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

// That nothing can be kept is said once, and once when it can be again; what was kept stays.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	s, log := newStore(t)
	require.NoError(t, s.save([]byte("kept")))
	require.NoError(t, os.Mkdir(s.path(storeNew), 0o700)) // also root cannot write there
	for range 3 {
		require.Error(t, s.save([]byte("lost")))
	}
	assert.Equal(t, 1, strings.Count(log.String(), "cannot be kept against a crash; they go on in memory"))
	assert.Equal(t, "kept", string(s.load()))
	require.NoError(t, os.RemoveAll(s.path(storeNew)))
	require.NoError(t, s.save([]byte("again")))
	assert.Contains(t, log.String(), "kept against a crash again")
}

func TestStoreCannotBeOpened(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := OpenStore(filepath.Join(file, "below"), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "--state-dir "+file)
	require.ErrorContains(t, err, "give a folder that this user may write to")
}
