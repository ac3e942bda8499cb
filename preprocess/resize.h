// The two passes of resize.go over one row, with its arithmetic.

#ifndef REFERSAM_RESIZE_H
#define REFERSAM_RESIZE_H

#include <stddef.h>
#include <stdint.h>

// refersam_resize_across makes `count` RGB pixels. Pixel i has `size` weights of
// its own (a multiple of 4, zeros at the end) for the pixels of src from
// firsts[i] on. halves are filter.halves of resize.go. src has src_size bytes;
// weights of 0 may stand for pixels beyond.
void refersam_resize_across(uint8_t *dst, const uint8_t *src, size_t src_size, const int32_t *firsts,
                            const int32_t *weights, const int16_t *halves, size_t size, size_t count);

// refersam_resize_down mixes `count` rows of `width` bytes from row `first` on;
// row i is at rows + i % capacity * width.
void refersam_resize_down(uint8_t *dst, size_t width, const uint8_t *rows, size_t capacity, size_t first,
                          const int32_t *weights, size_t count);

#endif
