package jpeg

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"

	"github.com/refersam/refersam/preprocess/picture"
)

// Markers of a JPEG (ITU-T T.81, table B.1).
const (
	markerTemporary    = 0x01
	markerFrame0       = 0xc0
	markerHuffman      = 0xc4
	markerExtensions   = 0xc8
	markerArithmetic   = 0xcc
	markerFrame15      = 0xcf
	markerRestart0     = 0xd0
	markerRestart7     = 0xd7
	markerStartOfImage = 0xd8
	markerEndOfImage   = 0xd9
	markerScan         = 0xda
	markerQuantization = 0xdb
	markerInterval     = 0xdd
	markerApp0         = 0xe0
	markerApp1         = 0xe1
	markerApp14        = 0xee
)

// maxScans bounds a progressive picture: a hostile one can hold thousands of
// scans in a few kilobytes, and each costs a pass over all pixels. Encoders
// write about ten.
const maxScans = 500

var errScans = picture.Unsupported("more than %d scans", maxScans)

// decoder decodes sequential and progressive pictures with Huffman codes and
// 8 bits per sample. Every sample equals the sample of libjpeg-turbo, and so of
// Pillow: same inverse DCT, same interpolation of chroma, same conversion.
//
// A sequential picture is decoded one row of MCUs at a time and never held as a
// whole. Of other pictures all coefficients are held. Where libjpeg passes over
// damaged data, decoder returns an error.
type decoder struct {
	frame *frameHeader
	state state
	bits  bitReader
	data  []byte // the unread part of the file

	interval     int // MCUs from one restart marker to the next, 0 for none
	jfif         bool
	adobe        int // its transform, -1 without an Adobe segment
	quantization [4][64]int16
	defined      [2][4]bool // whether state.tables has been read

	components []component
	maxH, maxV int
	// mcusAcross and mcusDown count the MCUs of a scan of all components.
	mcusAcross, mcusDown int
	// planes holds two rows of MCUs of each component: chroma between two of
	// them needs both.
	planes []uint8
	output output
}

// component is one of a frame's components. Its plan in state says how its blocks
// are decoded.
type component struct {
	id            uint8
	quantizer     uint8
	latched       bool    // whether its quantization table has been taken
	width, height int     // in samples, without padding
	blocks        int     // in a row, with padding
	coefficients  []int16 // all blocks, unless rows are decoded as they come
}

// decoders keeps decoders for their buffers: half a megabyte for a
// picture of 12 MP, which costs more to clear than a small picture to decode.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

// decodeGo draws the rows of a picture from the top. After an error the drawn
// rows are of no use.
func decodeGo(ctx context.Context, data []byte, frame *frameHeader, draw picture.Draw) error {
	d := decoders.Get().(*decoder)
	defer func() {
		d.data, d.frame, d.bits.rest = nil, nil, nil
		for i := range d.components {
			d.components[i].coefficients = nil
		}
		decoders.Put(d)
	}()
	d.frame, d.data = frame, data[2:] // without SOI
	d.interval, d.jfif, d.adobe = 0, false, -1
	d.defined = [2][4]bool{}
	d.quantization = [4][64]int16{}
	d.components = d.components[:0]
	return d.decode(ctx, draw)
}

func (d *decoder) decode(ctx context.Context, draw picture.Draw) error {
	for scans := 0; ; {
		marker, segment, err := d.next()
		if err != nil {
			return err
		}
		switch marker {
		case markerQuantization:
			err = d.readQuantization(segment)
		case markerHuffman:
			err = d.readHuffman(segment)
		case markerInterval:
			if len(segment) != 2 {
				return picture.ErrTruncated
			}
			d.interval = int(binary.BigEndian.Uint16(segment))
		case markerApp0:
			d.jfif = d.jfif || len(segment) >= 12 && bytes.HasPrefix(segment, []byte("JFIF\x00"))
		case markerApp14:
			if len(segment) >= 12 && bytes.HasPrefix(segment, []byte("Adobe")) {
				d.adobe = int(segment[11])
			}
		case markerFrame0, markerFrame0 + 1, markerFrame0 + 2:
			err = d.readFrame(marker, segment)
		case markerScan:
			if scans++; scans > maxScans {
				return errScans
			}
			var done bool
			if done, err = d.readScan(ctx, segment, draw); done {
				return err
			}
		case markerEndOfImage:
			return d.reconstruct(ctx, draw)
		}
		if err != nil {
			return err
		}
	}
}

// next returns the next marker with its segment. Like libjpeg it skips what is
// no marker.
func (d *decoder) next() (marker uint8, segment []byte, err error) {
	for {
		i := bytes.IndexByte(d.data, 0xff)
		if i < 0 || i+2 > len(d.data) {
			return 0, nil, picture.ErrTruncated
		}
		marker = d.data[i+1]
		switch {
		case marker == 0xff:
			d.data = d.data[i+1:]
			continue
		case marker == markerEndOfImage:
			d.data = d.data[i+2:]
			return marker, nil, nil
		case marker == markerStartOfImage:
			return 0, nil, picture.Damaged("two SOI markers")
		case marker == 0 || marker == markerTemporary || marker >= markerRestart0 && marker <= markerRestart7:
			d.data = d.data[i+2:]
			continue
		case i+4 > len(d.data):
			return 0, nil, picture.ErrTruncated
		}
		length := int(binary.BigEndian.Uint16(d.data[i+2:]))
		if length < 2 {
			return 0, nil, picture.Damaged("a segment without a length")
		}
		if i+2+length > len(d.data) {
			return 0, nil, picture.ErrTruncated
		}
		segment, d.data = d.data[i+4:i+2+length], d.data[i+2+length:]
		return marker, segment, nil
	}
}

func (d *decoder) readQuantization(segment []byte) error {
	for len(segment) > 0 {
		table, size := segment[0]&15, 1+int(segment[0]>>4)
		if table > 3 || size > 2 {
			return picture.Damaged("bad quantization table")
		}
		if len(segment) < 1+64*size {
			return picture.ErrTruncated
		}
		for i := range 64 {
			if size == 1 {
				d.quantization[table][zigzag[i]] = int16(segment[1+i])
			} else {
				d.quantization[table][zigzag[i]] = int16(binary.BigEndian.Uint16(segment[1+2*i:]))
			}
		}
		segment = segment[1+64*size:]
	}
	return nil
}

func (d *decoder) readHuffman(segment []byte) error {
	for len(segment) > 0 {
		class, table := segment[0]>>4, segment[0]&15
		if class > 1 || table > 3 {
			return picture.Damaged("bad Huffman table")
		}
		if len(segment) < 17 {
			return picture.ErrTruncated
		}
		total := 0
		for _, n := range segment[1:17] {
			total += int(n)
		}
		if len(segment) < 17+total {
			return picture.ErrTruncated
		}
		if err := d.state.tables[class][table].make(segment[1:17], segment[17:][:total], class == 0); err != nil {
			return err
		}
		d.defined[class][table] = true
		segment = segment[17+total:]
	}
	return nil
}

// readFrame reads the parts of the frame header that Open has not read. It
// refuses a frame other than the one that Open has read.
func (d *decoder) readFrame(marker uint8, segment []byte) error {
	frame, err := readFrameHeader(marker-markerFrame0, segment)
	if err != nil {
		return err
	}
	count := frame.components
	if frame.kept = d.frame.kept; *frame != *d.frame || len(d.components) > 0 {
		return picture.Damaged("a second frame")
	}
	if len(segment) != 6+3*count {
		return picture.ErrTruncated
	}
	d.maxH, d.maxV = 1, 1
	for i := range count {
		c := segment[6+3*i:]
		s := &d.state.components[i]
		*s = plan{h: int64(c[1] >> 4), v: int64(c[1] & 15)}
		if count == 1 {
			s.h, s.v = 1, 1 // a scan of one component has no MCUs of more blocks
		}
		if s.h < 1 || s.h > 4 || s.v < 1 || s.v > 4 || c[2] > 3 {
			return picture.Damaged("bad frame header")
		}
		d.maxH, d.maxV = max(d.maxH, int(s.h)), max(d.maxV, int(s.v))
		d.components = append(d.components, component{id: c[0], quantizer: c[2]})
	}
	d.mcusAcross = (d.frame.width + 8*d.maxH - 1) / (8 * d.maxH)
	d.mcusDown = (d.frame.height + 8*d.maxV - 1) / (8 * d.maxV)
	size := 0
	for i := range d.components {
		c, s := &d.components[i], &d.state.components[i]
		h, v := int(s.h), int(s.v)
		if d.maxH%h != 0 || d.maxV%v != 0 {
			return picture.Unsupported("%d×%d samples of %d×%d", h, v, d.maxH, d.maxV)
		}
		c.width = (d.frame.width*h + d.maxH - 1) / d.maxH
		c.height = (d.frame.height*v + d.maxV - 1) / d.maxV
		c.blocks = d.mcusAcross * h
		s.offset, s.stride = int64(size), int64(8*c.blocks)
		size += 2 * 8 * v * 8 * c.blocks
	}
	d.planes = sized(d.planes, size)
	d.output.start(d)
	return nil
}

// sized returns a slice of n elements: s, if it is long enough.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// scanHeader is a scan header (ITU-T T.81, B.2.3).
type scanHeader struct {
	components  []int
	first, last int // of the coefficients, in zigzag order
	// low is the lowest bit that the scan has. refined is the bit above, if an
	// earlier scan had it, or 0.
	refined, low int
	run          int // of blocks without more coefficients
}

// readScan decodes a scan. It returns done for the last one.
func (d *decoder) readScan(ctx context.Context, segment []byte, draw picture.Draw) (done bool, err error) {
	scan, err := d.readScanHeader(segment)
	if err != nil {
		return true, err
	}
	d.bits.start(&d.state, d.data)
	if !d.frame.kept {
		if len(scan.components) < len(d.components) {
			return true, picture.Damaged("bad scan header")
		}
		return true, d.stream(ctx, draw)
	}
	if err := d.keep(ctx, scan); err != nil {
		return true, err
	}
	d.bits.skip(&d.state)
	d.data = d.bits.rest
	return false, nil
}

func (d *decoder) readScanHeader(segment []byte) (*scanHeader, error) {
	if len(d.components) == 0 {
		return nil, picture.Damaged("a scan before the frame")
	}
	if len(segment) < 1 || len(segment) != 4+2*int(segment[0]) {
		return nil, picture.ErrTruncated
	}
	scan := new(scanHeader)
	count := int(segment[0])
	blocks := 0
	for i := range count {
		id, tables := segment[1+2*i], segment[2+2*i]
		index := -1
		for j := range d.components {
			if d.components[j].id == id && (index < 0 || i == j) {
				index = j
			}
		}
		if index < 0 || tables>>4 > 3 || tables&15 > 3 || i > 0 && index <= scan.components[i-1] {
			return nil, picture.Damaged("bad scan header")
		}
		s, c := &d.state.components[index], &d.components[index]
		s.dc, s.ac = int64(tables>>4), int64(tables&15)
		blocks += int(s.h * s.v)
		if !c.latched {
			c.latched, s.quantization = true, d.quantization[c.quantizer]
			if s.quantization == ([64]int16{}) {
				return nil, picture.Damaged("no quantization table")
			}
		}
		scan.components = append(scan.components, index)
	}
	const mostBlocks = 10 // in an MCU (ITU-T T.81, B.2.3)
	if count < 1 || count > 1 && blocks > mostBlocks {
		return nil, picture.Damaged("bad scan header")
	}
	end := segment[1+2*count:]
	scan.first, scan.last = int(end[0]), int(end[1])
	scan.refined, scan.low = int(end[2]>>4), int(end[2]&15)
	if !d.frame.progressive {
		scan.first, scan.last, scan.refined, scan.low = 0, 63, 0, 0
	}
	return scan, d.checkScan(scan)
}

// checkScan holds that the scan is in order and that its tables are there.
func (d *decoder) checkScan(scan *scanHeader) error {
	dc := scan.first == 0
	switch {
	case scan.last > 63 || scan.first > scan.last || scan.low > 13,
		scan.refined != 0 && scan.refined != scan.low+1,
		d.frame.progressive && dc != (scan.last == 0),
		!dc && len(scan.components) != 1:
		return picture.Damaged("bad progression")
	}
	for _, i := range scan.components {
		s := &d.state.components[i]
		if dc && scan.refined == 0 && !d.defined[0][s.dc] || scan.last > 0 && !d.defined[1][s.ac] {
			return picture.Damaged("no Huffman table")
		}
	}
	return nil
}

// stream decodes the only scan and gives each row once its chroma is there.
func (d *decoder) stream(ctx context.Context, draw picture.Draw) error {
	restart := d.interval
	d.state.count = int64(len(d.components))
	for y := range d.mcusDown {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.state.half = int64(y & 1)
		for x := 0; x < d.mcusAcross; {
			if d.interval > 0 && restart == 0 {
				if err := d.bits.restart(&d.state); err != nil {
					return err
				}
				restart = d.interval
			}
			count := d.mcusAcross - x
			if d.interval > 0 {
				count = min(count, restart)
			}
			done, ok := decodeMCUs(&d.state, d.bits.buffer, d.planes, x, count)
			if !ok {
				return errHuffman
			}
			if x, restart = x+done, restart-done; done < count && !d.bits.fill(&d.state) {
				return d.bits.ended()
			}
		}
		if d.bits.overrun(&d.state) {
			return d.bits.ended()
		}
		d.output.rows(d, y, draw)
	}
	return nil
}

// reconstruct makes the picture of all coefficients.
func (d *decoder) reconstruct(ctx context.Context, draw picture.Draw) error {
	for i := range d.components {
		if d.components[i].coefficients == nil {
			return picture.ErrTruncated
		}
	}
	if len(d.components) == 0 {
		return picture.ErrTruncated
	}
	var block [64]int16
	for y := range d.mcusDown {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range d.components {
			c, s := &d.components[i], &d.state.components[i]
			for by := range int(s.v) {
				at := int(s.offset) + ((y&1)*int(s.v)+by)*8*int(s.stride)
				blocks := c.coefficients[64*c.blocks*(y*int(s.v)+by):][:64*c.blocks]
				for x := 0; x < len(blocks); x += 64 {
					nonzero := uint64(0)
					for k, v := range blocks[x:][:64] {
						block[k] = v * s.quantization[k]
						if v != 0 {
							nonzero |= 1 << k
						}
					}
					inverseDCT(d.planes[at+x/8:], int(s.stride), &block, nonzero)
				}
			}
		}
		d.output.rows(d, y, draw)
	}
	return nil
}
