//go:build cgo && libjpeg

#include "libjpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <jpeglib.h>
#include <jerror.h>

// A hostile progressive picture can hold thousands of scans in a few kilobytes,
// each of which costs a pass over all pixels. Encoders write about ten.
#define MAX_SCANS 500

struct refersam_jpeg {
	struct jpeg_decompress_struct codec; // first: the callbacks get its address
	struct jpeg_error_mgr errors;
	struct jpeg_source_mgr source;
	struct jpeg_progress_mgr progress;
	jmp_buf back;
	int failure;
	int lenient;
	long long deadline;
	char message[JMSG_LENGTH_MAX];
};

long long refersam_jpeg_now(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fail(refersam_jpeg *j, int failure) {
	j->failure = failure;
	longjmp(j->back, 1);
}

static void on_error(j_common_ptr codec) {
	refersam_jpeg *j = (refersam_jpeg *)codec;
	j->errors.format_message(codec, j->message);
	switch (j->errors.msg_code) {
	case JERR_OUT_OF_MEMORY:
		fail(j, REFERSAM_JPEG_MEMORY);
	case JERR_SOF_UNSUPPORTED:
	case JERR_BAD_PRECISION:
	case JERR_CONVERSION_NOTIMPL:
	case JERR_ARITH_NOTIMPL:
	case JERR_NOT_COMPILED:
		fail(j, REFERSAM_JPEG_UNSUPPORTED);
	default:
		fail(j, REFERSAM_JPEG_BROKEN);
	}
}

// Damaged data is passed over, as Pillow does. But a scan that meets the end of
// the picture early leaves the rest grey, which is no picture.
static void on_message(j_common_ptr codec, int level) {
	refersam_jpeg *j = (refersam_jpeg *)codec;
	if (level < 0 && j->errors.msg_code == JWRN_HIT_MARKER && j->codec.unread_marker == JPEG_EOI && !j->lenient)
		fail(j, REFERSAM_JPEG_TRUNCATED);
}

static void on_output(j_common_ptr codec) { (void)codec; }

static void on_progress(j_common_ptr codec) {
	refersam_jpeg *j = (refersam_jpeg *)codec;
	if (j->deadline != 0 && refersam_jpeg_now() > j->deadline)
		fail(j, REFERSAM_JPEG_LATE);
	if (j->codec.input_scan_number > MAX_SCANS) {
		snprintf(j->message, sizeof j->message, "more than %d scans", MAX_SCANS);
		fail(j, REFERSAM_JPEG_UNSUPPORTED);
	}
}

static void source_nothing(j_decompress_ptr codec) { (void)codec; }

// All data is in the buffer from the start, so a decoder that wants more has
// met the end of a file that was cut off.
static boolean source_end(j_decompress_ptr codec) {
	static const JOCTET end_of_image[] = {0xff, JPEG_EOI};
	refersam_jpeg *j = (refersam_jpeg *)codec;
	if (!j->lenient)
		fail(j, REFERSAM_JPEG_TRUNCATED);
	codec->src->next_input_byte = end_of_image;
	codec->src->bytes_in_buffer = sizeof end_of_image;
	return TRUE;
}

static void source_skip(j_decompress_ptr codec, long count) {
	if (count <= 0)
		return;
	if ((unsigned long)count > codec->src->bytes_in_buffer)
		source_end(codec); // what was to be skipped is not there
	else {
		codec->src->next_input_byte += count;
		codec->src->bytes_in_buffer -= (size_t)count;
	}
}

refersam_jpeg *refersam_jpeg_new(const unsigned char *data, size_t size, long long deadline, int lenient) {
	refersam_jpeg *j = calloc(1, sizeof *j);
	if (j == NULL)
		return NULL;
	j->deadline = deadline;
	j->lenient = lenient;
	j->codec.err = jpeg_std_error(&j->errors);
	j->errors.error_exit = on_error;
	j->errors.emit_message = on_message;
	j->errors.output_message = on_output;
	if (setjmp(j->back) != 0) {
		refersam_jpeg_free(j);
		return NULL;
	}
	jpeg_create_decompress(&j->codec);
	j->source.next_input_byte = data;
	j->source.bytes_in_buffer = size;
	j->source.init_source = source_nothing;
	j->source.fill_input_buffer = source_end;
	j->source.skip_input_data = source_skip;
	j->source.resync_to_restart = jpeg_resync_to_restart;
	j->source.term_source = source_nothing;
	j->codec.src = &j->source;
	j->progress.progress_monitor = on_progress;
	j->codec.progress = &j->progress;
	return j;
}

int refersam_jpeg_start(refersam_jpeg *j, int denominator, unsigned *width, unsigned *height, int *components) {
	if (setjmp(j->back) != 0)
		return j->failure;
	jpeg_read_header(&j->codec, TRUE);
	switch (j->codec.num_components) {
	case 1:
		j->codec.out_color_space = JCS_GRAYSCALE;
		break;
	case 3:
		j->codec.out_color_space = JCS_RGB;
		break;
	case 4:
		j->codec.out_color_space = JCS_CMYK;
		break;
	default:
		snprintf(j->message, sizeof j->message, "%d components", j->codec.num_components);
		return REFERSAM_JPEG_UNSUPPORTED;
	}
	j->codec.scale_num = 1;
	j->codec.scale_denom = (unsigned)denominator;
	jpeg_start_decompress(&j->codec);
	*width = j->codec.output_width;
	*height = j->codec.output_height;
	*components = j->codec.output_components;
	return REFERSAM_JPEG_OK;
}

int refersam_jpeg_rows(refersam_jpeg *j, unsigned char *out, unsigned rows) {
	size_t stride = (size_t)j->codec.output_width * (size_t)j->codec.output_components;
	if (setjmp(j->back) != 0)
		return j->failure;
	while (rows > 0) {
		JSAMPROW row = out;
		jpeg_read_scanlines(&j->codec, &row, 1);
		out += stride;
		rows--;
	}
	return REFERSAM_JPEG_OK;
}

const char *refersam_jpeg_message(const refersam_jpeg *j) { return j->message; }

void refersam_jpeg_free(refersam_jpeg *j) {
	jpeg_destroy_decompress(&j->codec);
	free(j);
}
