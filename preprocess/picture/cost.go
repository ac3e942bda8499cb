package picture

// Costs of a pixel (Header.PixelCost), from 1920×1080 photographs decoded and
// resized to 448² on a 2.45 GHz AMD EPYC. The unit is 2.8 ns there: a little
// less than a pixel of a baseline JPEG takes with libjpeg-turbo. The comments
// are ns per pixel. The content of a file moves them by a factor of two either
// way.
const (
	CostBMP          = 1   // 3.4
	CostGIF          = 3   // 8.1
	CostPNG          = 9   // 24.8 of RGB, 9.4 of grey
	CostTIFF         = 2   // 4.3
	CostTIFFPacked   = 8   // 23.5 of LZW, 22.5 of Deflate
	CostWebPLossy    = 8   // 22.1
	CostWebPLossless = 12  // 32.9
	CostHEIC         = 146 // 585, of 4:2:0

	// JPEG with libjpeg-turbo. The coefficients of a progressive picture are
	// gone through once per scan.
	CostJPEG            = 1 // 3.0
	CostJPEGProgressive = 3 // 7.1 to 12
	CostJPEGInks        = 3 // on top: the conversion of four inks, to 11.5 in all

	// JPEG in plain Go.
	CostGoJPEG            = 3 // 8.9
	CostGoJPEGProgressive = 7 // about 21
)
