package intake

import (
	"io"
	"net/http"
	"time"
)

// Pace returns a body that a client must send as evenly as its size and the time
// for it allow, because memory is reserved for it. size is negative if it is not
// known. The whole body must arrive within most, counted from begun.
func Pace(body io.ReadCloser, control *http.ResponseController, size int64, begun time.Time, most time.Duration) io.ReadCloser {
	return &pacedBody{ReadCloser: body, control: control, begun: time.Now(), end: begun.Add(most), most: most, size: size}
}

// pacedBody allows the client to be a sixth of the time behind an even pace. A body
// of unknown size may pause for that long.
type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
	// Reading began at begun and ends by end. read bytes of size have arrived. The
	// whole body may take most. size is negative if it is not known.
	begun, end time.Time
	most       time.Duration
	size, read int64
	// err is how the body ended. After that net/http reads the connection itself to
	// notice a client that disconnects, and would mistake a deadline for that.
	err error
}

// Read implements io.Reader. If bytes arrive too late, it returns
// os.ErrDeadlineExceeded.
func (b *pacedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	_ = b.control.SetReadDeadline(b.due()) // a test's connection may not support it
	n, b.err = b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, b.err
}

// due returns when the next bytes must have arrived.
func (b *pacedBody) due() time.Time {
	due := time.Now()
	if b.size > 0 {
		due = b.begun.Add(time.Duration(float64(b.most) * float64(b.read) / float64(b.size)))
	}
	if due = due.Add(b.most / 6); due.After(b.end) {
		return b.end
	}
	return due
}
