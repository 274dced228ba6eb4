package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strings"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxUnpacked is the size up to which a compressed body is unpacked for us.
const maxUnpacked = 16 << 20

// exportedSpans reads the root spans of a request by OpenTelemetry's protocol over HTTP, in either of its encodings and
// with the compressions that MLflow's server takes. A span that failed is left out: it made no prediction.
func exportedSpans(header http.Header, body []byte) ([]span, error) {
	body, err := unpack(header.Get("Content-Encoding"), body)
	if err != nil {
		return nil, fmt.Errorf("unpack spans: %w", err)
	}
	// An ExportTraceServiceRequest, whose only field is that of TracesData; its own package would bring gRPC in.
	var data otlp.TracesData
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("read spans: %w", err)
	}
	id := func(b []byte) []byte { return b }
	switch media {
	case "application/x-protobuf":
		err = proto.Unmarshal(body, &data)
	case "application/json":
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, &data)
		id = writtenInHex
	default:
		err = fmt.Errorf("%q is none of the protocol's content types", media)
	}
	if err != nil {
		return nil, fmt.Errorf("read spans: %w", err)
	}
	var roots []span
	for _, resource := range data.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				trace := id(s.TraceId)
				failed := s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR
				if failed || !isZero(s.ParentSpanId) || isZero(trace) ||
					s.EndTimeUnixNano < s.StartTimeUnixNano || s.EndTimeUnixNano > math.MaxInt64 {
					continue
				}
				roots = append(roots, span{
					trace: hex.EncodeToString(trace),
					start: time.Unix(0, int64(s.StartTimeUnixNano)),
					end:   time.Unix(0, int64(s.EndTimeUnixNano)),
				})
			}
		}
	}
	return roots, nil
}

// isZero says of an id whether there is none.
func isZero(id []byte) bool { return len(bytes.Trim(id, "\x00")) == 0 }

// writtenInHex takes back what protobuf's own JSON makes of an id, which it expects in base64: this protocol writes ids in
// hexadecimal, whose digits are all base64's as well.
func writtenInHex(id []byte) []byte {
	if b, err := hex.DecodeString(base64.StdEncoding.EncodeToString(id)); err == nil {
		return b
	}
	return id
}

// unpack undoes a Content-Encoding.
func unpack(encoding string, body []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch strings.ToLower(encoding) {
	case "":
		return body, nil
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		if r, err = zlib.NewReader(bytes.NewReader(body)); err != nil { // some send it without zlib's frame
			r, err = flate.NewReader(bytes.NewReader(body)), nil
		}
	default:
		err = fmt.Errorf("%q is unknown", encoding)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err == nil && len(b) > maxUnpacked {
		err = errors.New("too large")
	}
	return b, err
}
