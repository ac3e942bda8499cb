package preprocess

// Cost is an estimate, made from the header alone, of the time that Decode or
// Stretch will take on one CPU. The unit is what a pixel of a baseline JPEG
// takes with AVX2, 2.8 ns on a 2.45 GHz AMD EPYC; how long that is here
// and now is for the caller to learn. Every picture costs at least baseCost.
func (e *Encoded) Cost() int64 {
	return baseCost + int64(e.src.pixelCost)*int64(e.src.width)*int64(e.src.height)
}

// baseCost is what comes on top of the pixels: setting up a codec, and the
// result, some 100 µs.
const baseCost = 36_000

// Costs of a pixel, from 1920×1080 photographs decoded and stretched to 448²:
// ns a pixel.
// What a file holds moves them by a factor of two either way.
const (
	costBMP          = 1  // 3.4
	costGIF          = 3  // 8.1
	costPNG          = 9  // 24.8 of RGB, 9.4 of grey
	costTIFF         = 2  // 4.3
	costTIFFPacked   = 8  // 23.5 of LZW, 22.5 of Deflate
	costWebPLossy    = 8  // 22.1
	costWebPLossless = 12 // 32.9
)

// jpegCost is three times as much for a progressive JPEG, whose coefficients
// are gone through once a scan: 2.8 and 7.1 to 12 ns a pixel; in plain Go 8.9
// and about 21. Four inks are converted on top: 11.5.
func jpegCost(frame *jpegFrame) int {
	cost, progressive := 1, 3
	if JPEGDecoder != libJPEG {
		cost, progressive = 3, 7
	}
	if frame.progressive {
		cost = progressive
	}
	if frame.components == 4 {
		cost += 3
	}
	return cost
}
