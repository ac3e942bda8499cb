package jpeg

import (
	"encoding/binary"

	"github.com/refersam/refersam/preprocess/picture"
)

// inverseDCT writes the samples of a block to eight rows of dst. A coefficient
// may differ from 0 only where its bit in nonzero is set. The transform is libjpeg's jidctint.c: Loeffler,
// Ligtenberg and Moschytz with 13 fractional bits, columns before rows. Between
// them numbers are clipped to 16 bits, as in libjpeg-turbo's vector code; in a
// picture that an encoder wrote none has more.
func inverseDCT(dst []uint8, stride int, block *[64]int16, nonzero uint64) {
	if nonzero&^1 == 0 {
		v := picture.Clip((clip16(int32(block[0])<<2)+1<<4)>>5 + 128)
		for y := range 8 {
			binary.LittleEndian.PutUint64(dst[y*stride:], uint64(v)*0x0101010101010101)
		}
		return
	}
	const column = 0x0101010101010101
	var between [64]int32
	for x := range 8 {
		if nonzero>>x&(column&^1) == 0 {
			v := clip16(int32(block[x]) << 2)
			for y := range 8 {
				between[8*y+x] = v
			}
			continue
		}
		v0, v1, v2, v3, v4, v5, v6, v7 := inverseDCT8(1<<10,
			int32(block[x]), int32(block[8+x]), int32(block[16+x]), int32(block[24+x]),
			int32(block[32+x]), int32(block[40+x]), int32(block[48+x]), int32(block[56+x]))
		between[x], between[8+x], between[16+x], between[24+x] = clip16(v0>>11), clip16(v1>>11), clip16(v2>>11), clip16(v3>>11)
		between[32+x], between[40+x], between[48+x], between[56+x] = clip16(v4>>11), clip16(v5>>11), clip16(v6>>11), clip16(v7>>11)
	}
	for y := range 8 {
		b := (*[8]int32)(between[8*y:])
		d := (*[8]uint8)(dst[y*stride:])
		v0, v1, v2, v3, v4, v5, v6, v7 := inverseDCT8(128<<18+1<<17, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7])
		d[0], d[1], d[2], d[3] = picture.Clip(v0>>18), picture.Clip(v1>>18), picture.Clip(v2>>18), picture.Clip(v3>>18)
		d[4], d[5], d[6], d[7] = picture.Clip(v4>>18), picture.Clip(v5>>18), picture.Clip(v6>>18), picture.Clip(v7>>18)
	}
}

// inverseDCT8 transforms eight numbers and adds a bias to each.
func inverseDCT8(bias, c0, c1, c2, c3, c4, c5, c6, c7 int32) (v0, v1, v2, v3, v4, v5, v6, v7 int32) {
	even := (c2 + c6) * 4433
	even2, even3 := even-c6*15137, even+c2*6270
	sum, difference := (c0+c4)<<13+bias, (c0-c4)<<13+bias
	e0, e1, e2, e3 := sum+even3, difference+even2, difference-even2, sum-even3

	z1, z2 := (c7+c1)*-7373, (c5+c3)*-20995
	z3, z4 := c7+c3, c5+c1
	z5 := (z3 + z4) * 9633
	z3, z4 = z3*-16069+z5, z4*-3196+z5
	o0, o1, o2, o3 := c7*2446+z1+z3, c5*16819+z2+z4, c3*25172+z2+z3, c1*12299+z1+z4
	return e0 + o3, e1 + o2, e2 + o1, e3 + o0, e3 - o0, e2 - o1, e1 - o2, e0 - o3
}

// clip16 takes two instructions for a number that fits.
func clip16(v int32) int32 {
	if v == int32(int16(v)) {
		return v
	}
	return min(max(v, -1<<15), 1<<15-1)
}

// output makes rows of pixels of the planes.
type output struct {
	color func(o *output, d *decoder, y int)
	done  int        // rows that have been drawn
	lag   int        // rows that wait for the MCUs below
	lines [4][]uint8 // of each component, at full resolution
	rgb   []uint8
}

func (o *output) start(d *decoder) {
	o.done, o.lag, o.color = 0, 0, (*output).ycc
	switch {
	case len(d.components) == 1:
		o.color = (*output).gray
	case len(d.components) == 4:
		o.color = (*output).cmyk
	case d.storedAsRGB():
		o.color = (*output).separate
	}
	for i := range d.components {
		s := &d.state.components[i]
		if int(2*s.v) == d.maxV {
			o.lag = 1
		}
		o.lines[i] = sized(o.lines[i], d.components[i].width*d.maxH/int(s.h))
	}
	o.rgb = sized(o.rgb, 3*d.frame.width)
}

// storedAsRGB is libjpeg's guess (jdapimin.c).
func (d *decoder) storedAsRGB() bool {
	c := d.components
	switch {
	case d.jfif:
		return false
	case d.adobe >= 0:
		return d.adobe == 0
	}
	return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B'
}

// rows gives the rows that are complete once row y of the MCUs is decoded.
func (o *output) rows(d *decoder, y int, draw picture.Draw) {
	end := d.frame.height
	if y+1 < d.mcusDown {
		end = (y+1)*8*d.maxV - o.lag
	}
	for ; o.done < end; o.done++ {
		o.color(o, d, o.done)
		draw(0, o.done, o.rgb[:3*d.frame.width])
	}
}

func (o *output) gray(d *decoder, y int) {
	for x, v := range d.line(0, y) {
		o.rgb[3*x], o.rgb[3*x+1], o.rgb[3*x+2] = v, v, v
	}
}

func (o *output) separate(d *decoder, y int) {
	r, g, b := o.full(d, 0, y), o.full(d, 1, y), o.full(d, 2, y)
	for x := range d.frame.width {
		o.rgb[3*x], o.rgb[3*x+1], o.rgb[3*x+2] = r[x], g[x], b[x]
	}
}

func (o *output) ycc(d *decoder, y int) {
	s := &d.state.components
	half := func(i int) bool {
		return int(2*s[i].h) == d.maxH && int(2*s[i].v) == d.maxV && d.components[i].width > 2
	}
	if int(s[0].h) == d.maxH && int(s[0].v) == d.maxV && half(1) && half(2) {
		blue, blueFar := d.nearAndFar(1, y)
		red, redFar := d.nearAndFar(2, y)
		halvedYCC(o.rgb, d.line(0, y), blue, blueFar, red, redFar)
		return
	}
	wholeYCC(o.rgb, o.full(d, 0, y)[:d.frame.width], o.full(d, 1, y), o.full(d, 2, y))
}

// cmyk takes 255 for no ink, whatever the file says of it, as Pillow does.
// Without a word of Adobe's the inks are not transformed.
func (o *output) cmyk(d *decoder, y int) {
	c, m, yellow, k := o.full(d, 0, y), o.full(d, 1, y), o.full(d, 2, y), o.full(d, 3, y)
	for x := range d.frame.width {
		inks := [4]uint8{255 - c[x], 255 - m[x], 255 - yellow[x], 255 - k[x]}
		if d.adobe > 0 { // then they are stored as the YCbCr of what they let through, inverted
			inks[0], inks[1], inks[2] = ycc(int32(c[x]), int32(m[x])-128, int32(yellow[x])-128)
		}
		picture.CMYKToRGB(o.rgb[3*x:3*x+3], inks[:])
	}
}

// line returns a line of a component as it is stored.
func (d *decoder) line(component, line int) []uint8 {
	s := &d.state.components[component]
	return d.planes[int(s.offset)+line%(16*int(s.v))*int(s.stride):][:d.components[component].width]
}

// nearAndFar returns the lines that row y lies between, of a component with
// half as many; at the edges both are the same.
func (d *decoder) nearAndFar(component, y int) (near, far []uint8) {
	other := y/2 - 1 + y%2*2
	return d.line(component, y/2), d.line(component, min(max(other, 0), d.components[component].height-1))
}

// full returns row y of a component at full resolution. Chroma is interpolated
// by a triangle filter ("fancy" in libjpeg) where there are half as many
// samples, but columns not if there are one or two; all else is repeated.
func (o *output) full(d *decoder, component, y int) []uint8 {
	s := &d.state.components[component]
	h, v := d.maxH/int(s.h), d.maxV/int(s.v)
	out := o.lines[component]
	wide := d.components[component].width > 2
	switch {
	case h == 1 && v == 1:
		return d.line(component, y)
	case h == 2 && v == 1 && wide:
		interpolate(out, d.line(component, y))
	case h == 2 && v == 2 && wide:
		near, far := d.nearAndFar(component, y)
		interpolate2(out, near, far)
	case h == 1 && v == 2:
		near, far := d.nearAndFar(component, y)
		round := int32(1 + y%2)
		for i := range out {
			out[i] = uint8((3*int32(near[i]) + int32(far[i]) + round) >> 2)
		}
	default:
		for i, v := range d.line(component, y/v) {
			for j := range h {
				out[h*i+j] = v
			}
		}
	}
	return out
}

// interpolate doubles a line: 3/4 of the nearer and 1/4 of the farther sample,
// rounded down on the left and up on the right.
func interpolate(out, line []uint8) {
	last := len(line) - 1
	for i, v := range line {
		here := 3 * int32(v)
		out[2*i] = uint8((here + int32(line[max(i-1, 0)]) + 1) >> 2)
		out[2*i+1] = uint8((here + int32(line[min(i+1, last)]) + 2) >> 2)
	}
}

// interpolate2 is interpolate in both directions, rounded once.
func interpolate2(out, near, far []uint8) {
	sum := func(i int) int32 { return 3*int32(near[i]) + int32(far[i]) }
	last := len(near) - 1
	before, here := sum(0), sum(0)
	for i := range near {
		behind := sum(min(i+1, last))
		out[2*i] = uint8((3*here + before + 8) >> 4)
		out[2*i+1] = uint8((3*here + behind + 7) >> 4)
		before, here = here, behind
	}
}

// ycc converts full-range BT.601 with 16 fractional bits, rounded per term as
// libjpeg does (jdcolor.c).
func ycc(y, cb, cr int32) (r, g, b uint8) {
	const half = 1 << 15
	return picture.Clip(y + (91881*cr+half)>>16),
		picture.Clip(y + (-22554*cb-46802*cr+half)>>16),
		picture.Clip(y + (116130*cb+half)>>16)
}

// The terms of ycc in one number, so that two additions convert a pixel: red
// from bit 0, blue from bit 11, green with its fraction from bit 22, each with
// 256 added so that none borrows from its neighbour.
var (
	yccBlue, yccRed [256]uint64
	yccClip         [2048]uint8
)

const yccLuma = 1 | 1<<11 | 1<<(22+16)

func init() {
	const half = 1 << 15
	for i := range 256 {
		v := int64(i) - 128
		yccBlue[i] = uint64((116130*v+half)>>16+256)<<11 + uint64(-22554*v+half+256<<16)<<22
		yccRed[i] = uint64((91881*v+half)>>16+256) + uint64(-46802*v)<<22
	}
	for i := range yccClip {
		yccClip[i] = picture.Clip(int32(i) - 256)
	}
}

// wholeYCC converts a row with as many samples of chroma as of luma.
func wholeYCC(rgb, luma, blue, red []uint8) {
	blue, red = blue[:len(luma)], red[:len(luma)]
	for x, y := range luma {
		yccPixel((*[3]uint8)(rgb[3*x:]), yccBlue[blue[x]]+yccRed[red[x]]+uint64(y)*yccLuma)
	}
}

func yccPixel(rgb *[3]uint8, sum uint64) {
	rgb[0], rgb[1], rgb[2] = yccClip[sum&2047], yccClip[sum>>(22+16)&2047], yccClip[sum>>11&2047]
}

// halvedYCC converts a row that lies between two lines of half as many chroma
// samples, three or more. It does interpolate2 on blue and red at once, as the
// two halves of a number.
func halvedYCC(rgb, luma, blue, blueFar, red, redFar []uint8) {
	blueFar, red, redFar = blueFar[:len(blue)], red[:len(blue)], redFar[:len(blue)]
	before := 3*(uint32(blue[0])|uint32(red[0])<<16) + (uint32(blueFar[0]) | uint32(redFar[0])<<16)
	here := before
	for i := 1; i < len(blue); i++ {
		behind := 3*(uint32(blue[i])|uint32(red[i])<<16) + (uint32(blueFar[i]) | uint32(redFar[i])<<16)
		left, right := (3*here+before+8<<16+8)>>4, (3*here+behind+7<<16+7)>>4
		before, here = here, behind
		p, l := (*[6]uint8)(rgb[6*i-6:]), (*[2]uint8)(luma[2*i-2:])
		yccPixel((*[3]uint8)(p[:3]), yccBlue[left&255]+yccRed[left>>16&255]+uint64(l[0])*yccLuma)
		yccPixel((*[3]uint8)(p[3:]), yccBlue[right&255]+yccRed[right>>16&255]+uint64(l[1])*yccLuma)
	}
	last := 2 * (len(blue) - 1)
	for x, offset := range []uint32{8, 7}[:len(luma)-last] {
		c := (3*here + here + offset<<16 + offset) >> 4
		if x == 0 {
			c = (3*here + before + offset<<16 + offset) >> 4
		}
		yccPixel((*[3]uint8)(rgb[3*(last+x):]), yccBlue[c&255]+yccRed[c>>16&255]+uint64(luma[last+x])*yccLuma)
	}
}
