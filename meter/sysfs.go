package meter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// readState is what a counter's or a meter's last reading is good for.
type readState int

const (
	readFresh    readState = iota // never read: the first reading is where it counts from
	readCounting                  // there is one
	readLost                      // the reading before failed: the interval that ends with the next one has no beginning
)

// errBack is the first reading after one that failed: its interval is as unknown as the one before, and 0 J would pass
// for measured.
var errBack = errors.New("it is back, and counts from here")

// sysfsNumber reads a file that holds one number; sysfs renders it anew for each read from its beginning.
func sysfsNumber(r io.ReaderAt) (uint64, error) {
	var b [64]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	text := bytes.TrimSpace(b[:n])
	v, ok := number(text)
	if !ok || v < 0 {
		return 0, fmt.Errorf("%q is not a counter", text)
	}
	return uint64(v), nil
}

// sysfsText reads a file that holds a word or a line; it is empty where that cannot be read.
func sysfsText(elem ...string) string {
	b, _ := os.ReadFile(filepath.Join(elem...))
	return strings.TrimSpace(string(b))
}
