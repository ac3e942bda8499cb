//go:build cgo && libjpeg

#include "resize.h"

#include <string.h>

#define PRECISION 22
#define HALF (1 << (PRECISION - 1))

static uint8_t rounded(int32_t sum) {
	sum >>= PRECISION;
	return sum > 255 ? 255 : (uint8_t)sum;
}

// Sums in unsigned numbers may pass 2^31 on the way; the results never do.
static void pixel_across(uint8_t *dst, const uint8_t *src, size_t pixels, const int32_t *weights, size_t size) {
	uint32_t r = HALF, g = HALF, b = HALF;
	if (size > pixels)
		size = pixels;
	for (size_t j = 0; j < size; j++) {
		uint32_t w = (uint32_t)weights[j];
		r += src[3 * j] * w;
		g += src[3 * j + 1] * w;
		b += src[3 * j + 2] * w;
	}
	dst[0] = rounded((int32_t)r);
	dst[1] = rounded((int32_t)g);
	dst[2] = rounded((int32_t)b);
}

static void across_plain(uint8_t *dst, const uint8_t *src, size_t src_size, const int32_t *firsts,
                         const int32_t *weights, size_t size, size_t count) {
	for (size_t i = 0; i < count; i++) {
		size_t first = (size_t)firsts[i];
		pixel_across(dst + 3 * i, src + 3 * first, src_size / 3 - first, weights + i * size, size);
	}
}

// Columns from..width in strips whose sums stay in the first cache.
static void down_plain(uint8_t *dst, size_t from, size_t width, const uint8_t *rows, size_t capacity, size_t first,
                       const int32_t *weights, size_t count) {
	int32_t sums[1024];
	for (; from < width; from += 1024) {
		size_t strip = width - from < 1024 ? width - from : 1024;
		for (size_t i = 0; i < strip; i++)
			sums[i] = HALF;
		for (size_t j = 0; j < count; j++) {
			const uint8_t *row = rows + (first + j) % capacity * width + from;
			int32_t w = weights[j];
			for (size_t i = 0; i < strip; i++)
				sums[i] += row[i] * w;
		}
		for (size_t i = 0; i < strip; i++)
			dst[from + i] = rounded(sums[i]);
	}
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

// Weights have 23 bits and vpmulld is slow, so each weight is taken apart into
// 12 bits above and 11 below, and vpmaddwd multiplies and adds two samples with
// each half at once. The sum of the two parts is exact modulo 2^32, and so is
// the result, which is less than 2^31.
#define LOW 11 // lowHalf in resize.go
#define LOW_MASK ((1 << LOW) - 1)

__attribute__((target("avx2"))) static __m256i total(__m256i high, __m256i low) {
	return _mm256_add_epi32(_mm256_slli_epi32(high, LOW), low);
}

__attribute__((target("avx2"))) static void across_avx2(uint8_t *dst, const uint8_t *src, size_t src_size,
                                                        const int32_t *firsts, const int32_t *weights,
                                                        const int16_t *halves, size_t size, size_t count) {
	// Four pixels of three bytes: in each half of the register two of them, as
	// 16-bit numbers [r0 r1 g0 g1 b0 b1 0 0].
	const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
	                                        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
	const __m256i above = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2), below = _mm256_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3);
	for (size_t i = 0; i < count; i++) {
		const uint8_t *s = src + 3 * (size_t)firsts[i];
		const int16_t *w = halves + 2 * i * size;
		// A load takes 16 bytes for 12; near the end of the row there are none.
		if (3 * ((size_t)firsts[i] + size) + 4 > src_size) {
			pixel_across(dst + 3 * i, s, src_size / 3 - (size_t)firsts[i], weights + i * size, size);
			continue;
		}
		__m256i high = _mm256_setzero_si256(), low = _mm256_setzero_si256();
		for (size_t j = 0; j < size; j += 4) {
			__m256i samples = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(s + 3 * j)));
			__m256i four = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(w + 2 * j)));
			samples = _mm256_shuffle_epi8(samples, spread);
			high = _mm256_add_epi32(high, _mm256_madd_epi16(samples, _mm256_permutevar8x32_epi32(four, above)));
			low = _mm256_add_epi32(low, _mm256_madd_epi16(samples, _mm256_permutevar8x32_epi32(four, below)));
		}
		__m256i both = total(high, low);
		__m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
		sum = _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(HALF)), PRECISION);
		sum = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
		uint32_t pixel = (uint32_t)_mm_cvtsi128_si32(sum);
		memcpy(dst + 3 * i, &pixel, 3);
	}
}

__attribute__((target("avx2"))) static void down_avx2(uint8_t *dst, size_t width, const uint8_t *rows,
                                                      size_t capacity, size_t first, const int32_t *weights,
                                                      size_t count) {
	size_t x = 0;
	for (; x + 16 <= width; x += 16) {
		__m256i high0 = _mm256_setzero_si256(), low0 = high0, high1 = high0, low1 = high0;
		size_t row = first % capacity;
		for (size_t j = 0; j < count; j += 2) {
			__m128i a = _mm_loadu_si128((const __m128i *)(rows + row * width + x)), b = _mm_setzero_si128();
			row = row + 1 == capacity ? 0 : row + 1;
			uint32_t wa = (uint32_t)weights[j], wb = 0;
			if (j + 1 < count) {
				b = _mm_loadu_si128((const __m128i *)(rows + row * width + x));
				row = row + 1 == capacity ? 0 : row + 1;
				wb = (uint32_t)weights[j + 1];
			}
			__m256i above = _mm256_set1_epi32((int32_t)((wb >> LOW) << 16 | wa >> LOW));
			__m256i below = _mm256_set1_epi32((int32_t)((wb & LOW_MASK) << 16 | (wa & LOW_MASK)));
			__m256i left = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
			__m256i right = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
			high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(left, above));
			low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(left, below));
			high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(right, above));
			low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(right, below));
		}
		const __m256i half = _mm256_set1_epi32(HALF);
		__m256i left = _mm256_srai_epi32(_mm256_add_epi32(total(high0, low0), half), PRECISION);
		__m256i right = _mm256_srai_epi32(_mm256_add_epi32(total(high1, low1), half), PRECISION);
		__m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(left, right), 0xd8);
		__m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0xd8);
		_mm_storeu_si128((__m128i *)(dst + x), _mm256_castsi256_si128(bytes));
	}
	down_plain(dst, x, width, rows, capacity, first, weights, count);
}

static int avx2(void) { return __builtin_cpu_supports("avx2"); }
#else
#define across_avx2(dst, src, src_size, firsts, weights, halves, ...) across_plain(dst, src, src_size, firsts, weights, __VA_ARGS__)
#define down_avx2(dst, width, ...) down_plain(dst, 0, width, __VA_ARGS__)
static int avx2(void) { return 0; }
#endif

void refersam_resize_across(uint8_t *dst, const uint8_t *src, size_t src_size, const int32_t *firsts,
                            const int32_t *weights, const int16_t *halves, size_t size, size_t count) {
	if (avx2())
		across_avx2(dst, src, src_size, firsts, weights, halves, size, count);
	else
		across_plain(dst, src, src_size, firsts, weights, size, count);
}

void refersam_resize_down(uint8_t *dst, size_t width, const uint8_t *rows, size_t capacity, size_t first,
                          const int32_t *weights, size_t count) {
	if (avx2())
		down_avx2(dst, width, rows, capacity, first, weights, count);
	else
		down_plain(dst, 0, width, rows, capacity, first, weights, count);
}
