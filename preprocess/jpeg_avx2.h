// The kernels of jpeg_huffman.go and jpeg_pixels.go for CPUs with AVX2, with
// their results. None reads or writes beyond the lengths it is given, whatever
// the data.

#ifndef REFERSAM_JPEG_AVX2_H
#define REFERSAM_JPEG_AVX2_H

#include <stddef.h>
#include <stdint.h>

// These are jpegPlan, jpegHuffman and jpegState.
typedef struct {
	int64_t h, v, dc, ac, offset, stride, last;
	int16_t quantization[64];
} refersam_jpeg_plan;

typedef struct {
	uint32_t lookup[1 << 10];
	int32_t codes[17], first[17];
	uint8_t symbols[256];
} refersam_jpeg_huffman;

typedef struct {
	uint64_t bits;
	int64_t valid, position, limit, half, count;
	refersam_jpeg_plan components[4];
	refersam_jpeg_huffman tables[2][4];
} refersam_jpeg_state;

// refersam_jpeg_avx2 reports whether this CPU can run what follows.
int refersam_jpeg_avx2(void);

// refersam_jpeg_mcus is decodeMCUs. It returns -1 for a code that does not
// exist.
int64_t refersam_jpeg_mcus(refersam_jpeg_state *, const uint8_t *buffer, uint8_t *planes, int64_t x, int64_t count);

// refersam_jpeg_halved is halvedYCC for a row of width pixels.
void refersam_jpeg_halved(uint8_t *rgb, size_t width, const uint8_t *luma, const uint8_t *blue,
                          const uint8_t *blue_far, const uint8_t *red, const uint8_t *red_far);

// refersam_jpeg_whole is wholeYCC for a row of width pixels.
void refersam_jpeg_whole(uint8_t *rgb, size_t width, const uint8_t *luma, const uint8_t *blue, const uint8_t *red);

#endif
