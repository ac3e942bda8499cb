//go:build !cgo || !libjpeg

package preprocess

var fastKernels = goKernels
