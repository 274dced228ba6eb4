package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// servingFile is where is kept what runs have not been given yet of what serving their models used.
const servingFile = "serving.json"

// keptDue is a due as it is kept.
type keptDue struct {
	RunID   string     `json:"run_id"`
	Used    keptTotals `json:"used"`
	Rows    float64    `json:"rows"`
	Partial string     `json:"partial"`
	Tried   float64    `json:"tried_g"`
}

// Keep writes into the state folder what could not be given to the runs. It is called when the proxy stops, after Drain.
func (s *Serving) Keep(dir string) error {
	s.mu.Lock()
	kept := []keptDue{}
	for id, d := range s.unsure {
		s.proxy.mu.Lock()
		l := s.proxy.letters[id]
		itself := l != nil && s.proxy.keeps(l) // with what was served in it
		s.proxy.mu.Unlock()
		if !itself {
			s.takeIn(id, d)
		}
	}
	for id, d := range s.due {
		kept = append(kept, keptDue{id, d.used.keep(), d.rows, d.partial, d.tried})
	}
	s.mu.Unlock()
	path := filepath.Join(dir, servingFile)
	if len(kept) == 0 {
		return nil
	}
	b, err := json.Marshal(kept)
	if err == nil {
		err = writeNew(path+".new", b)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep what serving used: %w", err)
	}
	return nil
}

// Restore takes up what was kept. A file that cannot be read is put aside.
func (s *Serving) Restore(dir string) error {
	path := filepath.Join(dir, servingFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what serving used: %w", err)
	}
	var kept []keptDue
	if err := json.Unmarshal(b, &kept); err != nil {
		s.log.Warn("what serving used before cannot be read; the file is put aside", "file", path, "error", err)
		return os.Rename(path, path+".damaged")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range kept {
		s.takeIn(k.RunID, due{k.Used.open(), k.Rows, k.Partial, k.Tried})
	}
	return os.Remove(path)
}
