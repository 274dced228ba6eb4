package proxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// Names under the state folder.
const (
	storeFile   = "runs"         // what is kept
	storeBefore = "runs.before"  // what was kept before that
	storeNew    = "runs.new"     // what is being written
	storeAside  = "runs.damaged" // what could not be read
	storeLock   = "lock"         // held for as long as a proxy uses the folder; its pid is in it
)

// storeHeader begins a file that is kept, with the version of its form. The SHA-256 of all that follows ends the line.
const storeHeader = "mlflow-emissions-proxy 1 sha256:"

// ErrInUse says that another proxy has the folder.
var ErrInUse = errors.New("in use")

// Store is the folder in which running sessions are kept against a crash. One proxy at a time uses it. After OpenStore
// its methods are called from one goroutine at a time.
type Store struct {
	dir     string
	lock    *flock.Flock
	log     *slog.Logger
	failing bool // the last save failed
}

// OpenStore makes the folder, if need be, and takes it for this proxy until Close. The error, in one line, says what to do
// where it cannot be written to, or another proxy has it.
func OpenStore(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--state-dir %s cannot be made; give a folder that this user may write to: %w", dir, err)
	}
	s := &Store{dir: dir, lock: flock.New(filepath.Join(dir, storeLock), flock.SetPermissions(0o600)), log: log}
	ours, err := s.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("--state-dir %s cannot be written to; give a folder that this user may write to: %w", dir, err)
	}
	if !ours {
		by := "another proxy"
		if pid, err := os.ReadFile(s.path(storeLock)); err == nil && len(bytes.TrimSpace(pid)) > 0 {
			by += fmt.Sprintf(" (pid %s)", bytes.TrimSpace(pid))
		}
		return nil, fmt.Errorf("--state-dir %s is %w by %s; stop that one, or give this one a folder of its own", dir, ErrInUse, by)
	}
	// As much as is kept of a run: a disk that is full takes the name of a file, but not what is in it.
	probe := strings.Repeat(" ", 16<<10)
	if err = os.WriteFile(s.path(storeNew), []byte(probe), 0o600); err == nil {
		err = os.Remove(s.path(storeNew))
	}
	if err == nil {
		err = os.WriteFile(s.path(storeLock), fmt.Appendln(nil, os.Getpid()), 0o600)
	}
	if err != nil {
		_ = s.lock.Unlock()
		return nil, fmt.Errorf("--state-dir %s cannot be written to; give a folder that this user may write to: %w", dir, err)
	}
	return s, nil
}

// Close gives the folder back.
func (s *Store) Close() error { return s.lock.Close() }

// Dir returns the folder.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// load returns what was kept last; nil if nothing was. A file that cannot be read, or is not as it was written, is put
// aside, and the one before it is taken.
func (s *Store) load() []byte {
	for _, name := range []string{storeFile, storeBefore} {
		b, err := os.ReadFile(s.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			b, err = unseal(b)
		}
		if err == nil {
			return b
		}
		s.putAside(name, err)
	}
	return nil
}

// putAside keeps a file that is of no use for whoever wants to look at it.
func (s *Store) putAside(name string, why error) {
	s.log.Warn("kept sessions cannot be read; the file is put aside", "file", s.path(name), "as", storeAside, "error", why)
	if err := os.Rename(s.path(name), s.path(storeAside)); err != nil {
		s.log.Warn("cannot put the file aside", "error", err)
	}
}

// save keeps content so that after a crash at any moment either it is there whole or what was kept before. That it cannot
// be kept is said once, and once when it can again.
func (s *Store) save(content []byte) error {
	err := s.write(seal(content))
	switch {
	case err != nil && !s.failing:
		s.log.Warn("running sessions cannot be kept against a crash; they go on in memory", "error", err)
	case err == nil && s.failing:
		s.log.Info("running sessions are kept against a crash again")
	}
	s.failing = err != nil
	return err
}

func (s *Store) write(b []byte) error {
	if err := writeNew(s.path(storeNew), b); err != nil {
		return err
	}
	if err := os.Rename(s.path(storeFile), s.path(storeBefore)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(s.path(storeNew), s.path(storeFile)); err != nil {
		return err
	}
	syncFolder(s.dir)
	return nil
}

// writeNew writes a file, for this user only, that is there whole once it gets its name: a rename does that.
func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path) // which may be what fills the disk
	}
	return err
}

// syncFolder makes new names last, where the system can do that for folders.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// seal puts the header before content.
func seal(content []byte) []byte {
	return append(fmt.Appendf(nil, "%s%x\n", storeHeader, sha256.Sum256(content)), content...)
}

// unseal returns what was sealed.
func unseal(b []byte) ([]byte, error) {
	line, content, found := bytes.Cut(b, []byte("\n"))
	switch {
	case !found || !bytes.HasPrefix(line, []byte(strings.Fields(storeHeader)[0]+" ")):
		return nil, errors.New("it is not a file of ours")
	case !bytes.HasPrefix(line, []byte(storeHeader)):
		return nil, errors.New("it is of another version of this program")
	case string(line) != fmt.Sprintf("%s%x", storeHeader, sha256.Sum256(content)):
		return nil, errors.New("it is damaged: its checksum is not that of what is in it")
	}
	return content, nil
}
