//go:build cgo && libjpeg

package preprocess

// #include "jpeg_avx2.h"
import "C"

import "unsafe"

// fastJPEGKernels are nil for a CPU without AVX2, where libjpeg is faster than
// the plain kernels.
var fastJPEGKernels = func() *jpegKernels {
	if C.refersam_jpeg_avx2() == 0 {
		return nil
	}
	return &jpegKernels{mcusAVX2, halvedAVX2, wholeAVX2}
}()

// The two sides mean the same by a jpegState, or this does not compile.
var _ = [1]struct{}{}[unsafe.Sizeof(jpegState{})-C.sizeof_refersam_jpeg_state]

func mcusAVX2(s *jpegState, buffer, planes []uint8, x, count int) (done int, ok bool) {
	n := C.refersam_jpeg_mcus((*C.refersam_jpeg_state)(unsafe.Pointer(s)),
		bytesC(buffer), bytesC(planes), C.int64_t(x), C.int64_t(count))
	return int(n), n >= 0
}

func halvedAVX2(rgb, luma, blue, blueFar, red, redFar []uint8) {
	C.refersam_jpeg_halved(bytesC(rgb), C.size_t(len(luma)), bytesC(luma), bytesC(blue), bytesC(blueFar), bytesC(red), bytesC(redFar))
}

func wholeAVX2(rgb, luma, blue, red []uint8) {
	C.refersam_jpeg_whole(bytesC(rgb), C.size_t(len(luma)), bytesC(luma), bytesC(blue), bytesC(red))
}

func bytesC(b []uint8) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(b)) }
