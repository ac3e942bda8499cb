//go:build cgo && libjpeg

package preprocess

// #cgo CFLAGS: -O2
// #include "resize.h"
import "C"

import "unsafe"

var fastKernels = kernels{acrossC, downC}

func acrossC(dst, src []uint8, f *filter) {
	C.refersam_resize_across(
		(*C.uint8_t)(unsafe.SliceData(dst)),
		(*C.uint8_t)(unsafe.SliceData(src)), C.size_t(len(src)),
		(*C.int32_t)(unsafe.SliceData(f.firsts)),
		(*C.int32_t)(unsafe.SliceData(f.weights)),
		(*C.int16_t)(unsafe.SliceData(f.halves)),
		C.size_t(f.size), C.size_t(len(f.firsts)))
}

func downC(dst, rows []uint8, first int, weights []int32) {
	C.refersam_resize_down(
		(*C.uint8_t)(unsafe.SliceData(dst)), C.size_t(len(dst)),
		(*C.uint8_t)(unsafe.SliceData(rows)), C.size_t(len(rows)/len(dst)), C.size_t(first),
		(*C.int32_t)(unsafe.SliceData(weights)), C.size_t(len(weights)))
}
