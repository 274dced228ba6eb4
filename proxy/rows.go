package proxy

import (
	"encoding/json"
	"io"
	"mime"
)

// rowCounter counts the rows that a scoring request asks predictions for, from its body as it passes by: bodies may be of any
// size, and none of it is kept.
type rowCounter interface {
	io.Writer
	// rows returns the number of rows once the body is complete; ok is false where that cannot be told.
	rows() (n int64, ok bool)
}

// newRowCounter returns the counter for a body of this content type, as MLflow's scoring server takes them; nil for one whose
// rows do not stand in the clear.
func newRowCounter(contentType string) rowCounter {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil
	}
	switch media {
	case "application/json":
		return &jsonRows{formats: inputFormats}
	case "text/csv":
		return &csvRows{}
	}
	return nil
}

// newAnswerCounter returns the counter for the server's answer, where the request does not tell: Parquet, for example.
func newAnswerCounter() rowCounter { return &jsonRows{formats: outputFormats} }

// The members of a scoring request of which the server wants exactly one, and the member of its answer.
var (
	inputFormats  = map[string]bool{"dataframe_split": true, "dataframe_records": true, "instances": true, "inputs": true}
	outputFormats = map[string]bool{"predictions": true}
)

// longestKey is more than any member's name that matters takes, each character of it written as an escape.
const longestKey = 128

// jsonRows counts rows in JSON. It follows the nesting and nothing else, so that it takes all that Python's parser takes,
// NaN for example, and the server's answer tells whether the rest was right.
//
// Rows are the elements of a list at the second or the third level: {"instances": [...]}, {"inputs": {"x": [...]}},
// {"dataframe_split": {"data": [...]}}.
type jsonRows struct {
	formats   map[string]bool
	depth     int
	objects   [3]bool // whether what is open at each of the first levels is an object
	inString  bool
	escaped   bool
	keyNext   bool   // the next string at this level is a member's name
	readsKey  bool   // the string that is being read is one
	key       []byte // of it, as written
	format    string // the member of the first level that we are in
	inner     string // the member of the second level, where that is an object
	counting  int    // depth of the list whose elements are counted; 0 for none
	fresh     bool   // its next element has not begun
	n         int64
	listed    bool // a list was counted within the present format
	found     bool // one of the formats was there
	hasObject bool // the body is an object, and complete
}

// Write is io.Writer's, and never fails.
func (j *jsonRows) Write(p []byte) (int, error) {
	for _, c := range p {
		j.next(c)
	}
	return len(p), nil
}

func (j *jsonRows) next(c byte) {
	if j.inString {
		j.inside(c)
		return
	}
	switch c {
	case ' ', '\t', '\r', '\n', ':':
		return
	case ',':
		j.fresh = j.fresh || j.depth == j.counting
		j.keyNext = j.atLevel(j.depth)
		return
	case ']', '}':
		if j.depth == j.counting {
			j.counting = 0
		}
		if j.depth--; j.depth == 0 {
			j.hasObject = true
		}
		j.depth = max(0, j.depth)
		return
	}
	// A value begins, or a member's name.
	if j.depth > 0 && j.depth == j.counting && j.fresh {
		j.n++
		j.fresh = false
	}
	switch c {
	case '"':
		j.inString, j.readsKey = true, j.keyNext
		j.key, j.keyNext = j.key[:0], false
	case '{', '[':
		j.open(c == '{')
	}
}

// atLevel says whether the members of what is open at this depth have names that matter.
func (j *jsonRows) atLevel(depth int) bool {
	return (depth == 1 || depth == 2) && j.objects[depth]
}

// inside follows a string.
func (j *jsonRows) inside(c byte) {
	switch {
	case j.escaped:
		j.escaped = false
	case c == '\\':
		j.escaped = true
	case c == '"':
		j.inString = false
		if j.readsKey {
			j.named()
		}
		return
	}
	if j.readsKey && len(j.key) < longestKey {
		j.key = append(j.key, c)
	}
}

// named takes a member's name in.
func (j *jsonRows) named() {
	var name string
	if json.Unmarshal([]byte(`"`+string(j.key)+`"`), &name) != nil {
		name = "" // too long, and cut within an escape
	}
	switch j.depth {
	case 1:
		j.format, j.inner = name, ""
		if j.formats[name] {
			// One value, until it turns out to be a list. Of members of one name the last wins.
			j.found, j.listed, j.n = true, false, 1
		}
	case 2:
		j.inner = name
	}
}

// open follows the beginning of an object or a list.
func (j *jsonRows) open(object bool) {
	j.depth++
	if j.depth < len(j.objects) {
		j.objects[j.depth] = object
	}
	j.keyNext = j.atLevel(j.depth)
	if object || !j.formats[j.format] || !j.objects[1] {
		return
	}
	split := j.format == "dataframe_split"
	switch {
	case j.depth == 2 && !split:
	case j.depth == 3 && j.objects[2] && split && j.inner == "data":
	case j.depth == 3 && j.objects[2] && !split && !j.listed: // the first column tells for all
	default:
		return
	}
	j.counting, j.fresh, j.n, j.listed = j.depth, true, 0, true
}

// rows is rowCounter's. An object with none of the formats is a prompt: language models take their own form, for one
// prediction.
func (j *jsonRows) rows() (int64, bool) {
	switch {
	case !j.hasObject || j.depth > 0 || j.inString:
		return 0, false
	case !j.found:
		return 1, true
	}
	return j.n, true
}

// csvRows counts the records of a CSV file less its header, as pandas reads them: blank lines are none, a quoted field
// may hold ends of lines, and a quote elsewhere than at a field's beginning is a character.
type csvRows struct {
	state   csvState
	records int64
}

type csvState int

const (
	csvBlank csvState = iota // nothing but blanks on this line yet
	csvFieldStart
	csvField
	csvQuoted
	csvQuoteInQuoted
)

// Write is io.Writer's, and never fails.
func (v *csvRows) Write(p []byte) (int, error) {
	for _, c := range p {
		v.next(c)
	}
	return len(p), nil
}

func (v *csvRows) next(c byte) {
	if v.state == csvQuoted {
		if c == '"' {
			v.state = csvQuoteInQuoted
		}
		return
	}
	switch {
	case c == '\n' || c == '\r':
		v.end()
	case c == '"' && v.state != csvField: // opens a quoted field, or is the second of two that stand for one
		v.state = csvQuoted
	case v.state == csvBlank && (c == ' ' || c == '\t'):
	case c == ',':
		v.state = csvFieldStart
	default:
		v.state = csvField
	}
}

// end ends a line.
func (v *csvRows) end() {
	if v.state != csvBlank {
		v.records++
	}
	v.state = csvBlank
}

// rows is rowCounter's.
func (v *csvRows) rows() (int64, bool) {
	records := v.records
	if v.state != csvBlank {
		records++ // the last line may lack its end
	}
	return max(0, records-1), v.state != csvQuoted && records > 0
}
