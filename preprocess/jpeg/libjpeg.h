// The part of libjpeg-turbo that decoding needs, behind calls that never jump
// out and never print. Pixels come out as Pillow gets them: accurate inverse
// DCT, interpolated chroma, warnings about damaged data passed over.

#ifndef REFERSAM_LIBJPEG_H
#define REFERSAM_LIBJPEG_H

#include <stddef.h>

enum {
	REFERSAM_JPEG_OK = 0,
	REFERSAM_JPEG_TRUNCATED,   // the data ends before the last row
	REFERSAM_JPEG_BROKEN,      // message says how
	REFERSAM_JPEG_UNSUPPORTED, // message says what
	REFERSAM_JPEG_LATE,        // the deadline has passed
	REFERSAM_JPEG_MEMORY,      // the C heap is exhausted
};

typedef struct refersam_jpeg refersam_jpeg;

// refersam_jpeg_new returns a decoder of size bytes at data, or NULL if there
// is no memory. data must stay where it is until refersam_jpeg_free.
//
// deadline is on the clock CLOCK_MONOTONIC in nanoseconds, 0 for none. A
// lenient decoder fills what is missing of cut-off data with grey.
refersam_jpeg *refersam_jpeg_new(const unsigned char *data, size_t size, long long deadline, int lenient);

// refersam_jpeg_start reads the header, and all scans of a progressive
// picture. It stores the size as decoded and the number of components a pixel:
// 1 is grey, 3 is RGB, 4 is CMYK with 255 for no ink. With denominator 2, 4 or
// 8 the picture is decoded at that fraction of its size.
int refersam_jpeg_start(refersam_jpeg *, int denominator, unsigned *width, unsigned *height, int *components);

// refersam_jpeg_rows decodes the next rows, each of width × components bytes,
// one behind the other.
int refersam_jpeg_rows(refersam_jpeg *, unsigned char *out, unsigned rows);

// refersam_jpeg_message returns what is wrong after REFERSAM_JPEG_BROKEN or
// REFERSAM_JPEG_UNSUPPORTED.
const char *refersam_jpeg_message(const refersam_jpeg *);

void refersam_jpeg_free(refersam_jpeg *);

// refersam_jpeg_now returns the time on the clock of the deadline.
long long refersam_jpeg_now(void);

#endif
