package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
)

// Picture makes a JPEG of quality 90, 4:2:0, from smooth noise of many scales and a
// sensor's grain. Its size and decoding cost are close to a photograph's.
func Picture(random *rand.Rand, width, height int) []byte {
	img := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	noise(random, img.Y, width, height, 55, 3)
	noise(random, img.Cb, img.CStride, len(img.Cb)/img.CStride, 25, 1)
	noise(random, img.Cr, img.CStride, len(img.Cr)/img.CStride, 25, 1)
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 90}); err != nil {
		panic(err) // writing to a buffer cannot fail, and the sizes are ours
	}
	return buf.Bytes()
}

// noise fills a plane with octaves of noise, with less power at higher frequencies.
func noise(random *rand.Rand, plane []uint8, width, height int, power, grain float64) {
	total := make([]float64, len(plane))
	for octave, cells := 0, 2; octave < 7; octave, cells = octave+1, cells*2 {
		addLayer(total, random, width, height, cells, power/math.Pow(1.6, float64(octave)))
	}
	for i, v := range total {
		plane[i] = uint8(min(255, max(0, 128+v+grain*random.NormFloat64())))
	}
}

// addLayer adds noise on a grid of cells × cells, interpolated in between.
func addLayer(total []float64, random *rand.Rand, width, height, cells int, power float64) {
	grid := make([]float64, (cells+1)*(cells+1))
	for i := range grid {
		grid[i] = power * random.NormFloat64()
	}
	for y := range height {
		v := float64(y) / float64(height) * float64(cells)
		row, dy := int(v), v-math.Floor(v)
		for x := range width {
			u := float64(x) / float64(width) * float64(cells)
			column, dx := int(u), u-math.Floor(u)
			corner := row*(cells+1) + column
			top := grid[corner]*(1-dx) + grid[corner+1]*dx
			bottom := grid[corner+cells+1]*(1-dx) + grid[corner+cells+2]*dx
			total[y*width+x] += top*(1-dy) + bottom*dy
		}
	}
}

// Source makes requests that no cache has seen: each differs from all others
// in its picture's bytes, in its pixels or in its phrases.
type Source struct {
	pictures [][]byte
	phrases  int
	request  Request
	count    int
}

// NewSource makes a Source with a number of pictures of one size, and a number of
// phrases per request.
func NewSource(random *rand.Rand, pictures, width, height, phrases int) *Source {
	s := &Source{phrases: phrases}
	for range pictures {
		s.pictures = append(s.pictures, Picture(random, width, height))
	}
	return s
}

// With makes further requests like this one, but with their own pictures and
// phrases.
func (s *Source) With(r Request) *Source {
	copied := *s
	copied.request = r
	return &copied
}

var (
	colours = []string{"red", "green", "blue", "yellow", "black", "white", "brown", "grey"}
	things  = []string{"car", "dog", "cup", "chair", "person", "boat", "tree", "bottle", "bird", "table", "lamp"}
	places  = []string{"on the left", "on the right", "in the middle", "near the door", "at the top", "behind the fence"}
)

// Phrase makes the i-th phrase of an endless series.
func Phrase(i int) string {
	return fmt.Sprintf("the %s %s %s number %d", colours[i%len(colours)], things[i%len(things)], places[i%len(places)], i)
}

// Next makes the next request.
func (s *Source) Next() Request {
	r := s.request
	r.Picture = unique(s.pictures[s.count%len(s.pictures)], s.count)
	r.Phrases = make([]string, s.phrases)
	for i := range r.Phrases {
		r.Phrases[i] = Phrase(s.count*s.phrases + i)
	}
	s.count++
	return r
}

// unique inserts a comment into a JPEG, after its first marker.
func unique(picture []byte, number int) []byte {
	const marker = 2
	out := make([]byte, 0, len(picture)+12)
	out = append(out, picture[:marker]...)
	out = append(out, 0xff, 0xfe, 0, 10)
	out = binary.BigEndian.AppendUint64(out, uint64(number))
	return append(out, picture[marker:]...)
}

const boundary = "----refersam-load-0123456789"

// formBody returns the request as multipart/form-data, and its size.
func formBody(r Request) (io.Reader, int64) {
	var head, tail bytes.Buffer
	field := func(name, value string) {
		fmt.Fprintf(&tail, "\r\n--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s", boundary, name, value)
	}
	fmt.Fprintf(&head, "--%s\r\nContent-Disposition: form-data; name=\"image\"; filename=\"picture.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n", boundary)
	for _, phrase := range r.Phrases {
		field("phrase", phrase)
	}
	if r.Deadline > 0 {
		field("deadline_ms", strconv.FormatInt(r.Deadline.Milliseconds(), 10))
	}
	fmt.Fprintf(&tail, "\r\n--%s--\r\n", boundary)
	size := int64(head.Len() + len(r.Picture) + tail.Len())
	return io.MultiReader(&head, bytes.NewReader(r.Picture), &tail), size
}
