package reply

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/refersam/refersam/api"
)

const (
	encodingZstd = "zstd"
	encodingGzip = "gzip"

	// minCompressed is the size of the smallest answer that is compressed. A smaller one
	// fits into one packet anyway.
	minCompressed = 1 << 10
)

// WriteCompressed sends v as JSON. It compresses the JSON in the given encoding if
// there is one and the JSON is large enough.
func WriteCompressed(w http.ResponseWriter, v any, encoding string) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteCompressedBody(w, body, encoding)
}

// WriteCompressedBody is WriteCompressed for a body that is already JSON.
func WriteCompressedBody(w http.ResponseWriter, body []byte, encoding string) (err error) {
	if encoding != "" && len(body) >= minCompressed {
		if body, err = compress(body, encoding); err != nil {
			return err
		}
		w.Header().Set("Content-Encoding", encoding)
	}
	WriteBody(w, api.MediaJSON, body)
	return nil
}

// AcceptedEncoding returns the content coding that the Accept-Encoding header
// fields prefer (RFC 9110, section 12.5.3). It returns zstd if they have no
// preference, and "" if they allow neither coding or prefer no coding.
func AcceptedEncoding(accept []string) string {
	weights := make(map[string]float64)
	for element := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, params, _ := strings.Cut(element, ";")
		q := 1.0
		if value, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(value, 64); err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		weights[strings.ToLower(strings.TrimSpace(name))] = q
	}
	best, most := "", weights["identity"]
	for _, encoding := range []string{encodingGzip, encodingZstd} {
		q, named := weights[encoding]
		if !named {
			q = weights["*"]
		}
		if q > 0 && q >= most {
			best, most = encoding, q
		}
	}
	return best
}

// zstdWriter compresses whole bodies, up to one per CPU at the same time.
var zstdWriter = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
})

// gzipWriters holds unused writers.
var gzipWriters sync.Pool

func compress(body []byte, encoding string) ([]byte, error) {
	if encoding == encodingZstd {
		z, err := zstdWriter()
		if err != nil {
			return nil, err
		}
		return z.EncodeAll(body, make([]byte, 0, len(body)/2)), nil
	}
	var out bytes.Buffer
	z, ok := gzipWriters.Get().(*gzip.Writer)
	if !ok {
		var err error
		if z, err = gzip.NewWriterLevel(nil, gzip.BestSpeed); err != nil {
			return nil, err
		}
	}
	defer gzipWriters.Put(z)
	z.Reset(&out)
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	err := z.Close()
	return out.Bytes(), err
}
