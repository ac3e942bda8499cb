package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	main "github.com/refersam/refersam/cmd/refersam"
)

// npy returns what numpy.save writes for float32.
func npy(shape string, fortran bool, values ...float32) string {
	order := "False"
	if fortran {
		order = "True"
	}
	return npyWith(fmt.Sprintf("{'descr': '<f4', 'fortran_order': %s, 'shape': (%s), }", order, shape), values...)
}

func npyWith(header string, values ...float32) string {
	header += strings.Repeat(" ", 63-(10+len(header))%64) + "\n"
	b := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	b = append(b, header...)
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return string(b)
}

// maskOf runs the subcommand on logits from standard input.
func maskOf(t *testing.T, logits string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	m := main.Main{Args: append([]string{"mask", "-"}, args...), Stdin: strings.NewReader(logits), Stdout: &out, Stderr: &errs}
	code = m.Run(t.Context())
	return code, out.String(), errs.String()
}

func TestMask(t *testing.T) {
	// Foreground in the right half, and more of it at the bottom.
	logits := npy("2, 2", false, -1, 1, -1, 3)
	for _, tc := range []struct {
		name, logits string
		args         []string
		want         string
	}{
		{"COCO's RLE is the default", logits, nil, `{"size":[3,5],"counts":"5:"}`},
		{"COCO's RLE", logits, []string{"--format", "coco_rle"}, `{"size":[3,5],"counts":"5:"}`},
		{"uncompressed", logits, []string{"--format", "rle"}, `{"size":[3,5],"counts":[5,10]}`},
		{"polygons", logits, []string{"--format", "polygon"}, `{"type":"MultiPolygon","coordinates":[[[[1,3],[1,2],[2,2],[2,0],[5,0],[5,3],[1,3]]]]}`},
		{"a threshold", logits, []string{"--format", "rle", "--threshold", "0.9"}, `{"size":[3,5],"counts":[14,1]}`},
		{"axes of length 1", npy("1, 1, 2, 2", false, -1, 1, -1, 3), []string{"--format", "rle"}, `{"size":[3,5],"counts":[5,10]}`},
		{"columns first", npy("2, 2", true, -1, -1, 1, 3), []string{"--format", "rle"}, `{"size":[3,5],"counts":[5,10]}`},
		{"padding cut off", npy("2, 2", false, 1, 1, -1, -1), []string{"--format", "rle", "--resize", "longest_side_pad"}, `{"size":[3,5],"counts":[0,2,1,2,1,2,1,2,1,2,1]}`},
		{"nothing", npy("1, 1", false, -1), nil, `{"size":[3,5],"counts":"?"}`},
		{"nothing, outlined", npy("1, 1", false, -1), []string{"--format", "polygon"}, `{"type":"MultiPolygon","coordinates":[]}`},
		{"a hole", npy("3, 5", false, 1, 1, 1, 1, 1, 1, -1, 1, -1, 1, 1, 1, 1, 1, 1), []string{"--format", "rle", "--fill-holes", "1"}, `{"size":[3,5],"counts":[0,15]}`},
		{"a speck", npy("1, 5", false, 1, -1, 1, 1, -1), []string{"--format", "rle", "--min-area", "4"}, `{"size":[3,5],"counts":[6,6,3]}`},
		{"the largest", npy("1, 5", false, 1, -1, 1, 1, -1), []string{"--format", "rle", "--largest"}, `{"size":[3,5],"counts":[6,6,3]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := maskOf(t, tc.logits, append(tc.args, "--width", "5", "--height", "3")...)
			if code != 0 || out != tc.want+"\n" {
				t.Errorf("exit %d, %s%s, want %s", code, errs, out, tc.want)
			}
		})
	}
}

func TestMask_Files(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "logits.npy"), filepath.Join(dir, "mask.png")
	if err := os.WriteFile(in, []byte(npy("2, 2", false, -1, 1, -1, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"png", "png8", "probability"} {
		code, stdout, errs := run(t, nil, "mask", in, "--width", "30", "--height", "20", "--format", format, "-o", out)
		if code != 0 || stdout != "" {
			t.Fatalf("%s: exit %d, %q on standard output: %s", format, code, stdout, errs)
		}
		file, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(file)
		file.Close()
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		left, _, _, _ := img.At(0, 0).RGBA()
		right, _, _, _ := img.At(29, 19).RGBA()
		if b := img.Bounds(); b.Dx() != 30 || b.Dy() != 20 || left >= right {
			t.Errorf("%s: %v, from %d to %d", format, b, left, right)
		}
	}
}

func TestMask_Failures(t *testing.T) {
	good := npy("2, 2", false, -1, 1, -1, 1)
	size := []string{"--width", "5", "--height", "3"}
	for _, tc := range []struct {
		name, logits string
		args         []string
		code         int
		want         string
	}{
		{"no size", good, nil, 2, "--width"},
		{"another format", good, append(size, "--format", "bmp"), 2, "bmp"},
		{"no width", good, []string{"--width", "0", "--height", "3"}, 1, "0×3"},
		{"beyond all", good, []string{"--width", "100000", "--height", "100000"}, 1, "100000×100000"},
		{"a threshold of 1", good, append(size, "--threshold", "1"), 1, "threshold"},
		{"NaN", npy("1, 1", false, float32(math.NaN())), size, 1, "NaN"},
		{"nothing", "", size, 1, "not an .npy file"},
		{"a picture", "\x89PNG\r\n\x1a\n", size, 1, "not an .npy file"},
		{"no header", good[:9], size, 1, "cut off"},
		{"half a header", good[:40], size, 1, "cut off"},
		{"a header beyond all", "\x93NUMPY\x02\x00\xff\xff\xff\x7f", size, 1, "header of"},
		{"another header", npyWith("{'a': 1}"), size, 1, "header"},
		{"float64", npyWith("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }", 0, 0), size, 1, "float32"},
		{"a number", npy("", false, 1), size, 1, "shape"},
		{"one axis", npy("4,", false, 1, 1, 1, 1), size, 1, "shape"},
		{"many pictures", npy("2, 1, 2", false, 1, 1, 1, 1), size, 1, "shape"},
		{"no rows", npy("0, 4", false), size, 1, "shape"},
		{"more than there is", npy("99999999999, 99999999999", false), size, 1, "shape"},
		{"beyond numbers", npy("99999999999999999999, 1", false), size, 1, "shape"},
		{"too little data", good[:len(good)-1], size, 1, "does not fit"},
		{"too much data", good + "\x00", size, 1, "does not fit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := maskOf(t, tc.logits, tc.args...)
			if code != tc.code || !strings.Contains(errs, tc.want) || out != "" && code == 1 {
				t.Errorf("exit %d, want %d and a message with %q:\n%s%s", code, tc.code, tc.want, errs, out)
			}
		})
	}
	if code, _, errs := run(t, nil, "mask", "nowhere.npy", "--width", "1", "--height", "1"); code != 1 || !strings.Contains(errs, "nowhere.npy") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// FuzzMask gives the program arbitrary files: it must report an error or answer.
func FuzzMask(f *testing.F) {
	f.Add([]byte(npy("2, 2", false, -1, 1, -1, 1)))
	f.Add([]byte(npy("1, 2, 1", true, -1, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		code, out, errs := maskOf(t, string(data), "--width", "9", "--height", "9")
		if (code == 0) != (errs == "") || (code == 0) != strings.HasPrefix(out, `{"size":[9,9],"counts":"`) {
			t.Errorf("exit %d: %s%s", code, errs, out)
		}
	})
}
