package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// MLflow answers 400 to a JSON body without Content-Length, so one that was there must stay, and chunked stay chunked.
func TestContentLengthStays(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write([]byte(strconv.FormatInt(r.ContentLength, 10) + " " + strings.Join(r.TransferEncoding, "") + " " + string(b)))
	}, nil)
	assert.Equal(t, "5  hello", text(t, do(t, "POST", front, nil, strings.NewReader("hello"))))
	assert.Equal(t, "-1 chunked hello", text(t, do(t, "POST", front, nil, io.MultiReader(strings.NewReader("hello")))))
	// A watched call's body has been read by us, and is all there.
	b := newBench(t, nil)
	var length int64
	b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, name string, _ []byte) bool {
		if name == "update" {
			length = r.ContentLength
		}
		return false
	}
	id := b.create("")
	body := `{"run_id":"` + id + `","status":"FINISHED"}`
	b.post("update", body)
	assert.EqualValues(t, len(body), length)
}
