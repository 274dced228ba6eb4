package proxy

import (
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
)

// A false number of rows is a false figure for each prediction; a body comes in pieces that end anywhere.
func TestRows(t *testing.T) {
	t.Parallel()
	const unknown = -1
	many := `{"dataframe_split": {"columns": ["a", "b"], "data": [` + strings.Repeat(`[1, "x,]"],`, 9999) + `[1, 2]]}}`
	for _, c := range []struct {
		name, contentType, body string
		want                    int64
	}{
		{"split", "application/json", `{"dataframe_split": {"index": [0, 1, 2], "columns": ["a"], "data": [[1], [2]]}}`, 2},
		{"split, data first", "application/json", `{"dataframe_split":{"data":[[1],[2],[3]],"columns":["a"]}}`, 3},
		{"split with a list as a cell", "application/json", `{"dataframe_split":{"data":[[[1,2],{"a":[3]}]]}}`, 1},
		{"split, empty", "application/json", `{"dataframe_split":{"columns":["a"],"data":[ ]}}`, 0},
		{"many", "application/json", many, 10000},
		{"records", "application/json; charset=utf-8", `{"dataframe_records": [{"a": 1, "b": [1, 2]}, {"a": 2}]}`, 2},
		{"instances of lists", "application/json", `{"instances": [[1, 2], [3, 4], [5, 6]]}`, 3},
		{"instances of numbers", "application/json", `{"instances": [1, NaN, -Infinity, 1e3]}`, 4},
		{"instances by column", "application/json", `{"instances": {"a": [1, 2, 3], "b": [[1], [2], [3]]}}`, 3},
		{"inputs", "application/json", `{"inputs": [[1, 2], [3, 4]], "params": {"k": [1, 2, 3]}}`, 2},
		{"parameters first", "application/json", `{"params": {"data": [1, 2, 3], "inputs": [1]}, "inputs": ["a"]}`, 1},
		{"inputs by column", "application/json", `{"inputs": {"a": ["x,\"]", "y"]}}`, 2},
		{"inputs by column, a scalar first", "application/json", `{"inputs": {"a": 1, "b": [1, 2]}}`, 2},
		{"inputs of one record", "application/json", `{"inputs": {"a": 1, "b": "x"}}`, 1},
		{"one scalar", "application/json", `{"inputs": "a prompt [1, 2]"}`, 1},
		{"null", "application/json", `{"inputs": null}`, 1},
		{"the last of one name wins", "application/json", `{"inputs": [1, 2, 3], "inputs": [1]}`, 1},
		{"the last of one name wins, scalar", "application/json", `{"inputs": [1, 2, 3], "inputs": 7}`, 1},
		{"an escaped name", "application/json", `{"inst\u0061nces": [1, 2]}`, 2},
		{"a chat", "application/json", `{"messages": [{"role": "user", "content": "inputs"}]}`, 1},
		{"a name within", "application/json", `{"messages": {"inputs": [1, 2, 3]}}`, 1},
		{"cut off", "application/json", `{"inputs": [1, 2`, unknown},
		{"cut off in a string", "application/json", `{"inputs": ["}]`, unknown},
		{"empty", "application/json", ``, unknown},
		{"a file", "text/csv", "a,b\n1,2\n3,4\n", 2},
		{"a file without a last end of line", "text/csv; charset=utf-8", "a,b\n1,2\n3,4", 2},
		{"a file of Windows", "text/csv", "a,b\r\n1,2\r\n", 1},
		{"blank lines", "text/csv", "a\n\n1\n  \n2\n\n", 2},
		{"quoted ends of lines", "text/csv", "a,b\n\"x\ny\",\"\"\"\n\"\n1,2\n", 2},
		{"a quote within", "text/csv", "a,b\n5\",6\n7,8\n", 2},
		{"an empty quoted field", "text/csv", "a\n\"\"\n", 1},
		{"empty fields", "text/csv", "a,b\n,\n", 1},
		{"a header alone", "text/csv", "a,b\n", 0},
		{"no header", "text/csv", "", unknown},
		{"an open quote", "text/csv", "a\n\"x\n", unknown},
		{"columns in binary", "application/vnd.apache.parquet", "PAR1", unknown},
		{"no type", "", "{}", unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, whole := range []bool{true, false} {
				counter := newRowCounter(c.contentType)
				if counter == nil {
					assert.EqualValues(t, unknown, c.want)
					return
				}
				if whole {
					_, _ = counter.Write([]byte(c.body))
				} else {
					b := make([]byte, 7)
					for r := iotest.OneByteReader(strings.NewReader(c.body)); ; {
						n, err := r.Read(b)
						_, _ = counter.Write(b[:n])
						if err != nil {
							break
						}
					}
				}
				n, ok := counter.rows()
				if !ok {
					n = unknown
				}
				assert.Equal(t, c.want, n)
			}
		})
	}
}

// Whatever bytes come, counting neither fails nor depends on where the pieces end.
func FuzzRows(f *testing.F) {
	f.Add("application/json", []byte(`{"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}`), 3)
	f.Add("application/json", []byte(`{"inputs": {"a": ["x,\"]", "y"]}, "inputs": []}}}`), 9)
	f.Add("text/csv", []byte("a,b\n\"x\ny\",\"\"\"\n\"\n1,2\n"), 5)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, cut int) {
		whole, pieces := newRowCounter(contentType), newRowCounter(contentType)
		if whole == nil {
			return
		}
		cut = min(max(0, cut), len(body))
		_, _ = whole.Write(body)
		_, _ = pieces.Write(body[:cut])
		_, _ = pieces.Write(body[cut:])
		n, ok := whole.rows()
		m, also := pieces.rows()
		assert.Equal(t, n, m)
		assert.Equal(t, ok, also)
		assert.GreaterOrEqual(t, n, int64(0))
		assert.LessOrEqual(t, n, int64(len(body))+1)
	})
}

// Where the request does not tell, the answer does.
func TestRowsOfAnswer(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]int64{
		`{"predictions": [1, [2, 3], {"a": 4}]}`: 3,
		`{"predictions": {"a": [1, 2]}}`:         2,
		`{"predictions": 5}`:                     1,
		`{"choices": [{"message": "x"}, 2]}`:     1,
	} {
		c := newAnswerCounter()
		_, _ = c.Write([]byte(body))
		n, ok := c.rows()
		assert.True(t, ok, body)
		assert.Equal(t, want, n, body)
	}
}
