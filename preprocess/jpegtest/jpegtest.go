// Package jpegtest makes JPEGs for tests.
package jpegtest

import (
	"bytes"
	"image"
	"image/jpeg"
)

// Encode makes a picture of noise over a gradient, so that some blocks have many
// coefficients and others few. Equal arguments give equal bytes.
func Encode(t interface{ Fatal(...any) }, width, height, quality int, seed uint32) []byte {
	img := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	for _, plane := range [][]uint8{img.Y, img.Cb, img.Cr} {
		for i := range plane {
			seed = seed*1664525 + 1013904223
			plane[i] = uint8(i*3) + uint8(seed>>24)>>(i/997%8)
		}
	}
	var data bytes.Buffer
	if err := jpeg.Encode(&data, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}
