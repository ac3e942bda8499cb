//go:build cgo && libjpeg

#include "jpeg_avx2.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,bmi2")))
#define LOOKUP_BITS 10

int refersam_jpeg_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"); }

static const uint8_t zigzag[128] = {
	0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, //
	41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, //
	30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,         //
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
};

// A position in the scan, in registers while a block is decoded.
typedef struct {
	uint64_t bits;
	int64_t valid;
	const uint8_t *next;
} reader;

AVX2 static inline void refill(reader *r) {
	uint64_t more;
	memcpy(&more, r->next, sizeof more);
	r->bits |= __builtin_bswap64(more) >> (r->valid & 63);
	r->next += (63 - r->valid) >> 3;
	r->valid |= 56;
}

AVX2 static inline void drop(reader *r, unsigned n) {
	r->bits <<= n & 63;
	r->valid -= n;
}

AVX2 static inline int32_t value(reader *r, unsigned size) {
	int32_t bits = (int32_t)(r->bits >> 1 >> (63 - size));
	drop(r, size);
	return bits < 1 << size >> 1 ? bits - (1 << size) + 1 : bits;
}

// A code that lookup does not hold: the symbol, and from bit 8 on its length,
// or 0. It gets no reader, which stays in registers so.
static unsigned long_code(uint64_t bits, const refersam_jpeg_huffman *h) {
	int32_t code = (int32_t)(bits >> 48);
	for (unsigned length = LOOKUP_BITS + 1; length <= 16; length++)
		if (code < h->codes[length])
			return length << 8 | h->symbols[((code >> (16 - length)) - h->first[length]) & 0xff];
	return 0;
}

// Returns the number of the last coefficient, or -1.
AVX2 static inline int read_block(reader *r, const refersam_jpeg_state *s, refersam_jpeg_plan *c, int16_t block[64]) {
	const refersam_jpeg_huffman *dc = &s->tables[0][c->dc & 3], *ac = &s->tables[1][c->ac & 3];
	refill(r);
	uint32_t e = dc->lookup[r->bits >> (64 - LOOKUP_BITS)];
	int32_t v = (int16_t)(e >> 16);
	if (v != 0)
		drop(r, e & 0xff);
	else {
		unsigned length = e & 0xff, size = e >> 8 & 15;
		if (length == 0) {
			unsigned code = long_code(r->bits, dc);
			if (code == 0)
				return -1;
			length = code >> 8, size = code & 15;
		}
		drop(r, length);
		v = value(r, size);
	}
	c->last += v;
	block[0] = (int16_t)((int16_t)c->last * c->quantization[0]);

	int last = 0;
	for (int k = 1; k < 64; k++) {
		refill(r);
		e = ac->lookup[r->bits >> (64 - LOOKUP_BITS)];
		v = (int16_t)(e >> 16);
		if (v != 0) {
			drop(r, e & 0xff);
			k += e >> 8 & 15;
		} else {
			unsigned length = e & 0xff, symbol = e >> 8 & 0xff;
			if (length == 0) {
				unsigned code = long_code(r->bits, ac);
				if (code == 0)
					return -1;
				length = code >> 8, symbol = code & 0xff;
			}
			drop(r, length);
			k += (int)(symbol >> 4);
			if ((symbol & 15) == 0) {
				if (symbol < 0xf0)
					break;
				continue;
			}
			v = (int16_t)value(r, symbol & 15);
		}
		unsigned at = zigzag[k];
		block[at] = (int16_t)(v * c->quantization[at]);
		last = k;
	}
	return last;
}

// Eight numbers of 16 bits from each half become pairs of one from each.
AVX2 static inline __m256i pairs(__m256i halves) {
	const __m256i interleave = _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, //
	                                            0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
	return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(halves, 0xd8), interleave);
}

AVX2 static inline __m256i times(__m256i pair, int a, int b) {
	return _mm256_madd_epi16(pair, _mm256_set1_epi32((int)((unsigned)b << 16 | ((unsigned)a & 0xffff))));
}

// Pairs of factors, in memory, from where vpmaddwd takes them; gcc would build
// them in registers each time.
#define PAIR(a, b) {a, b, a, b, a, b, a, b, a, b, a, b, a, b, a, b}
_Alignas(32) static const int16_t factors[12][16] = {
	PAIR(8192, 8192),   PAIR(8192, -8192),   PAIR(10703, 4433),  PAIR(4433, -10704), // even
	PAIR(11363, 6437),  PAIR(9633, -11362),  PAIR(6437, 2261),   PAIR(2260, 9633),   // of 1 and 5
	PAIR(9633, 2260),   PAIR(-2259, -6436),  PAIR(-11362, 9633), PAIR(-6436, -11363), // of 3 and 7
};

#define TIMES(pair, i) _mm256_madd_epi16(pair, _mm256_load_si256((const __m256i *)factors[i]))

// Two rows of the result, i and 7 - i, of an even and an odd sum.
#define ROWS(low, high, even, odd) \
	__m256i low = _mm256_srai_epi32(_mm256_add_epi32(even, odd), shift); \
	__m256i high = _mm256_srai_epi32(_mm256_sub_epi32(even, odd), shift)

// inverseDCT8 on eight columns, then rows and columns change places. t holds
// the rows 0 and 4, 1 and 5, 2 and 6, 3 and 7. Each odd term is the sum that
// the steps of inverseDCT8 come to.
AVX2 static inline __attribute__((always_inline)) void transform(__m256i t[4], int bias, int shift) {
	__m256i p04 = pairs(t[0]), p15 = pairs(t[1]), p26 = pairs(t[2]), p37 = pairs(t[3]);
	__m256i round = _mm256_set1_epi32(bias);
	__m256i sum = _mm256_add_epi32(TIMES(p04, 0), round), difference = _mm256_add_epi32(TIMES(p04, 1), round);
	__m256i even3 = TIMES(p26, 2), even2 = TIMES(p26, 3);
	ROWS(r0, r7, _mm256_add_epi32(sum, even3), _mm256_add_epi32(TIMES(p15, 4), TIMES(p37, 8)));
	ROWS(r1, r6, _mm256_add_epi32(difference, even2), _mm256_add_epi32(TIMES(p15, 5), TIMES(p37, 9)));
	ROWS(r2, r5, _mm256_sub_epi32(difference, even2), _mm256_add_epi32(TIMES(p15, 6), TIMES(p37, 10)));
	ROWS(r3, r4, _mm256_sub_epi32(sum, even3), _mm256_add_epi32(TIMES(p15, 7), TIMES(p37, 11)));
	__m256i r01 = _mm256_packs_epi32(r0, r1), r23 = _mm256_packs_epi32(r2, r3);
	__m256i r45 = _mm256_packs_epi32(r4, r5), r67 = _mm256_packs_epi32(r6, r7);
	__m256i r02 = _mm256_unpacklo_epi16(r01, r23), r13 = _mm256_unpackhi_epi16(r01, r23);
	__m256i r46 = _mm256_unpacklo_epi16(r45, r67), r57 = _mm256_unpackhi_epi16(r45, r67);
	__m256i a = _mm256_unpacklo_epi16(r02, r13), b = _mm256_unpackhi_epi16(r02, r13);
	__m256i c = _mm256_unpacklo_epi16(r46, r57), d = _mm256_unpackhi_epi16(r46, r57);
	t[0] = _mm256_unpacklo_epi64(a, c);
	t[1] = _mm256_unpackhi_epi64(a, c);
	t[2] = _mm256_unpacklo_epi64(b, d);
	t[3] = _mm256_unpackhi_epi64(b, d);
}

// Eight samples each of rows i and i + 1, and of i + 4 and i + 5.
AVX2 static inline void store_rows(uint8_t *dst, int64_t stride, __m256i first, __m256i second) {
	__m256i rows = _mm256_add_epi8(_mm256_packs_epi16(first, second), _mm256_set1_epi8((char)128));
	__m128i upper = _mm256_castsi256_si128(rows), lower = _mm256_extracti128_si256(rows, 1);
	_mm_storel_epi64((__m128i *)dst, upper);
	_mm_storeh_pd((double *)(dst + stride), _mm_castsi128_pd(upper));
	_mm_storel_epi64((__m128i *)(dst + 4 * stride), lower);
	_mm_storeh_pd((double *)(dst + 5 * stride), _mm_castsi128_pd(lower));
}

// Rows i and i + 4 of a block.
AVX2 static inline __m256i rows(const int16_t *block, int i) {
	__m128i upper = _mm_load_si128((const __m128i *)(block + 8 * i));
	return _mm256_inserti128_si256(_mm256_castsi128_si256(upper), _mm_load_si128((const __m128i *)(block + 8 * i + 32)), 1);
}

AVX2 static inline void inverse_dct(uint8_t *dst, int64_t stride, const int16_t *block) {
	__m256i t[4] = {rows(block, 0), rows(block, 1), rows(block, 2), rows(block, 3)};
	transform(t, 1 << 10, 11);
	transform(t, 1 << 17, 18);
	store_rows(dst, stride, t[0], t[1]);
	store_rows(dst + 2 * stride, stride, t[2], t[3]);
}

// A block of one colour.
AVX2 static inline void fill(uint8_t *dst, int64_t stride, int16_t dc) {
	int v = dc * 4;
	v = v > INT16_MAX ? INT16_MAX : v < INT16_MIN ? INT16_MIN : v;
	v = ((v + 16) >> 5) + 128;
	v = v > 255 ? 255 : v < 0 ? 0 : v;
	uint64_t row = (uint64_t)v * 0x0101010101010101;
	for (int y = 0; y < 8; y++)
		memcpy(dst + y * stride, &row, sizeof row);
}

// Makes samples of a block and zeros the coefficients.
AVX2 static inline void draw(uint8_t *dst, int64_t stride, int16_t block[64], int last) {
	if (last == 0) {
		fill(dst, stride, block[0]);
		return;
	}
	inverse_dct(dst, stride, block);
	memset(block, 0, 64 * sizeof block[0]);
}

// The blocks of an MCU are all read before the first is drawn: a load of many
// coefficients has to wait until the last of them has left the store buffer.
AVX2 int64_t refersam_jpeg_mcus(refersam_jpeg_state *s, const uint8_t *buffer, uint8_t *planes, int64_t x,
                                int64_t count) {
	_Alignas(32) int16_t blocks[10][64] = {{0}};
	int last[10];
	reader r = {s->bits, s->valid, buffer + s->position};
	const uint8_t *limit = buffer + s->limit;
	int64_t done = 0;
	for (; done < count && r.next <= limit; done++) {
		int n = 0;
		for (int64_t i = 0; i < s->count; i++) {
			refersam_jpeg_plan *c = &s->components[i];
			for (int64_t b = 0; b < c->h * c->v; b++, n++)
				if ((last[n] = read_block(&r, s, c, blocks[n])) < 0)
					return -1;
		}
		n = 0;
		for (int64_t i = 0; i < s->count; i++) {
			refersam_jpeg_plan *c = &s->components[i];
			for (int64_t by = 0; by < c->v; by++) {
				uint8_t *dst = planes + c->offset + ((s->half * c->v + by) * c->stride + (x + done) * c->h) * 8;
				for (int64_t bx = 0; bx < c->h; bx++, n++)
					draw(dst + 8 * bx, c->stride, blocks[n], last[n]);
			}
		}
	}
	s->bits = r.bits;
	s->valid = r.valid;
	s->position = r.next - buffer;
	return done;
}

static uint8_t clip(int v) { return v > 255 ? 255 : v < 0 ? 0 : (uint8_t)v; }

static void pixel(uint8_t *rgb, int y, int cb, int cr) {
	const int half = 1 << 15;
	cb -= 128;
	cr -= 128;
	rgb[0] = clip(y + ((91881 * cr + half) >> 16));
	rgb[1] = clip(y + ((-22554 * cb - 46802 * cr + half) >> 16));
	rgb[2] = clip(y + ((116130 * cb + half) >> 16));
}

// red, green and blue less luma, of chroma from which 128 has been taken. A
// product with 16 fractional bits is rounded by halving what pmulhw leaves of
// twice as much; whole multiples are added apart for the factors to fit.
typedef struct {
	__m256i r, g, b;
} offsets;

AVX2 static inline offsets chroma(__m256i cb, __m256i cr) {
	const __m256i one = _mm256_set1_epi16(1), half = _mm256_set1_epi32(1 << 15);
	__m256i cb2 = _mm256_add_epi16(cb, cb), cr2 = _mm256_add_epi16(cr, cr);
	__m256i r = _mm256_mulhi_epi16(cr2, _mm256_set1_epi16(91881 - 65536));
	__m256i b = _mm256_mulhi_epi16(cb2, _mm256_set1_epi16(116130 - 131072));
	__m256i low = times(_mm256_unpacklo_epi16(cb, cr), -22554, 65536 - 46802);
	__m256i high = times(_mm256_unpackhi_epi16(cb, cr), -22554, 65536 - 46802);
	low = _mm256_srai_epi32(_mm256_add_epi32(low, half), 16);
	high = _mm256_srai_epi32(_mm256_add_epi32(high, half), 16);
	offsets o = {
		_mm256_add_epi16(cr, _mm256_srai_epi16(_mm256_add_epi16(r, one), 1)),
		_mm256_sub_epi16(_mm256_packs_epi32(low, high), cr),
		_mm256_add_epi16(cb2, _mm256_srai_epi16(_mm256_add_epi16(b, one), 1)),
	};
	return o;
}

// Writes 32 pixels. The chroma of pixels 0 to 7 and 16 to 23 comes in cb0 and
// cr0, that of the others in cb1 and cr1.
AVX2 static inline void convert(uint8_t *rgb, __m256i y, __m256i cb0, __m256i cb1, __m256i cr0, __m256i cr1) {
	const __m256i center = _mm256_set1_epi16(128), zero = _mm256_setzero_si256();
	__m256i y0 = _mm256_unpacklo_epi8(y, zero), y1 = _mm256_unpackhi_epi8(y, zero);
	offsets o0 = chroma(_mm256_sub_epi16(cb0, center), _mm256_sub_epi16(cr0, center));
	offsets o1 = chroma(_mm256_sub_epi16(cb1, center), _mm256_sub_epi16(cr1, center));
	__m256i r = _mm256_packus_epi16(_mm256_add_epi16(y0, o0.r), _mm256_add_epi16(y1, o1.r));
	__m256i g = _mm256_packus_epi16(_mm256_add_epi16(y0, o0.g), _mm256_add_epi16(y1, o1.g));
	__m256i b = _mm256_packus_epi16(_mm256_add_epi16(y0, o0.b), _mm256_add_epi16(y1, o1.b));
	// Bytes 16i to 16i+15 of what 16 pixels take: the colours have every third.
	const __m128i spread[3] = {
		_mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5),
		_mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1),
		_mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1),
	};
	const __m128i spread_green[3] = {
		_mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1),
		_mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10),
		_mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1),
	};
	const __m128i spread_blue[3] = {
		_mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1),
		_mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1),
		_mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15),
	};
	for (int i = 0; i < 3; i++) {
		__m256i out = _mm256_shuffle_epi8(r, _mm256_broadcastsi128_si256(spread[i]));
		out = _mm256_or_si256(out, _mm256_shuffle_epi8(g, _mm256_broadcastsi128_si256(spread_green[i])));
		out = _mm256_or_si256(out, _mm256_shuffle_epi8(b, _mm256_broadcastsi128_si256(spread_blue[i])));
		_mm_storeu_si128((__m128i *)(rgb + 16 * i), _mm256_castsi256_si128(out));
		_mm_storeu_si128((__m128i *)(rgb + 48 + 16 * i), _mm256_extracti128_si256(out, 1));
	}
}

AVX2 void refersam_jpeg_whole(uint8_t *rgb, size_t width, const uint8_t *luma, const uint8_t *blue,
                              const uint8_t *red) {
	const __m256i zero = _mm256_setzero_si256();
	size_t x = 0;
	for (; x + 32 <= width; x += 32) {
		__m256i cb = _mm256_loadu_si256((const __m256i *)(blue + x)), cr = _mm256_loadu_si256((const __m256i *)(red + x));
		convert(rgb + 3 * x, _mm256_loadu_si256((const __m256i *)(luma + x)), //
		        _mm256_unpacklo_epi8(cb, zero), _mm256_unpackhi_epi8(cb, zero), //
		        _mm256_unpacklo_epi8(cr, zero), _mm256_unpackhi_epi8(cr, zero));
	}
	for (; x < width; x++)
		pixel(rgb + 3 * x, luma[x], blue[x], red[x]);
}

AVX2 static inline __m256i mixed(const uint8_t *near, const uint8_t *far) {
	__m256i n = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)near));
	__m256i f = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)far));
	return _mm256_add_epi16(f, _mm256_add_epi16(n, _mm256_add_epi16(n, n)));
}

// Makes 32 samples of 16, which have one on either side.
AVX2 static inline void interpolate(const uint8_t *near, const uint8_t *far, __m256i *low, __m256i *high) {
	__m256i here = mixed(near, far);
	__m256i here3 = _mm256_add_epi16(here, _mm256_add_epi16(here, here));
	__m256i left = _mm256_add_epi16(_mm256_add_epi16(here3, mixed(near - 1, far - 1)), _mm256_set1_epi16(8));
	__m256i right = _mm256_add_epi16(_mm256_add_epi16(here3, mixed(near + 1, far + 1)), _mm256_set1_epi16(7));
	left = _mm256_srli_epi16(left, 4);
	right = _mm256_srli_epi16(right, 4);
	*low = _mm256_unpacklo_epi16(left, right);
	*high = _mm256_unpackhi_epi16(left, right);
}

// Sample x of what `count` samples of a line are interpolated to.
static int interpolated(const uint8_t *near, const uint8_t *far, size_t count, size_t x) {
	size_t here = x / 2, other = here;
	if (x % 2 == 0 && here > 0)
		other--;
	else if (x % 2 == 1 && here + 1 < count)
		other++;
	return (3 * (3 * near[here] + far[here]) + 3 * near[other] + far[other] + 8 - (int)(x % 2)) >> 4;
}

AVX2 void refersam_jpeg_halved(uint8_t *rgb, size_t width, const uint8_t *luma, const uint8_t *blue,
                               const uint8_t *blue_far, const uint8_t *red, const uint8_t *red_far) {
	size_t count = (width + 1) / 2, x = 0;
	while (x < width) {
		size_t i = x / 2;
		if (x % 2 == 0 && i > 0 && i + 17 <= count && x + 32 <= width) {
			__m256i cb0, cb1, cr0, cr1;
			interpolate(blue + i, blue_far + i, &cb0, &cb1);
			interpolate(red + i, red_far + i, &cr0, &cr1);
			convert(rgb + 3 * x, _mm256_loadu_si256((const __m256i *)(luma + x)), cb0, cb1, cr0, cr1);
			x += 32;
			continue;
		}
		pixel(rgb + 3 * x, luma[x], interpolated(blue, blue_far, count, x), interpolated(red, red_far, count, x));
		x++;
	}
}
#else
int refersam_jpeg_avx2(void) { return 0; }
int64_t refersam_jpeg_mcus(refersam_jpeg_state *s, const uint8_t *buffer, uint8_t *planes, int64_t x, int64_t count) {
	(void)s, (void)buffer, (void)planes, (void)x, (void)count;
	return -1;
}
void refersam_jpeg_halved(uint8_t *rgb, size_t width, const uint8_t *luma, const uint8_t *blue,
                          const uint8_t *blue_far, const uint8_t *red, const uint8_t *red_far) {
	(void)rgb, (void)width, (void)luma, (void)blue, (void)blue_far, (void)red, (void)red_far;
}
void refersam_jpeg_whole(uint8_t *rgb, size_t width, const uint8_t *luma, const uint8_t *blue, const uint8_t *red) {
	(void)rgb, (void)width, (void)luma, (void)blue, (void)red;
}
#endif
