package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/refersam/refersam"
)

// maxLogits is far more than any model returns: 4096².
const maxLogits = 1 << 24

// The header of an .npy file is a Python dictionary with three keys, padded with
// blanks. NumPy writes them in this order, and so do other writers that follow the
// format.
var npyHeader = regexp.MustCompile(`^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), *\}\s*$`)

// readNPY reads one row of logits from an .npy file of float32 [height, width],
// with any number of leading axes of length 1.
func readNPY(r io.Reader) (refersam.Logits, error) {
	var l refersam.Logits
	header, err := readNPYHeader(r)
	if err != nil {
		return l, err
	}
	match := npyHeader.FindStringSubmatch(header)
	if match == nil {
		return l, fmt.Errorf("the .npy header %q is not in the form that numpy.save writes", header)
	}
	if match[1] != "<f4" {
		return l, fmt.Errorf("the values are %q, want float32 (<f4)", match[1])
	}
	var shape []int
	for axis := range strings.SplitSeq(match[3], ",") {
		if axis = strings.TrimSpace(axis); axis == "" {
			continue
		}
		n, err := strconv.Atoi(axis)
		if err != nil {
			return l, fmt.Errorf("the shape (%s) cannot be read", match[3])
		}
		shape = append(shape, n)
	}
	for len(shape) > 2 && shape[0] == 1 {
		shape = shape[1:]
	}
	if len(shape) != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > maxLogits/shape[1] {
		return l, fmt.Errorf("the shape is (%s), want (height, width)", match[3])
	}
	l.Height, l.Width = shape[0], shape[1]

	var data bytes.Buffer // grows with the data, whatever the header says
	size := int64(4 * l.Width * l.Height)
	if n, err := io.Copy(&data, io.LimitReader(r, size+1)); err != nil {
		return l, err
	} else if n != size {
		return l, fmt.Errorf("the data does not fit the shape (%s)", match[3])
	}
	l.Values = make([]float32, l.Width*l.Height)
	for i := range l.Values {
		at := i
		if match[2] == "True" {
			at = i%l.Width*l.Height + i/l.Width
		}
		l.Values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data.Bytes()[4*at:]))
	}
	return l, nil
}

// readNPYHeader reads the header before the data.
func readNPYHeader(r io.Reader) (string, error) {
	var start [8]byte
	if _, err := io.ReadFull(r, start[:]); err != nil || string(start[:6]) != "\x93NUMPY" {
		return "", errors.New("not an .npy file")
	}
	length := make([]byte, 2)
	if start[6] > 1 {
		length = make([]byte, 4)
	}
	if _, err := io.ReadFull(r, length); err != nil {
		return "", errors.New("the .npy header is cut off")
	}
	n := int(binary.LittleEndian.Uint32(append(length, 0, 0)))
	const most = 1 << 16
	if n > most {
		return "", fmt.Errorf("the .npy header of %d bytes is too long", n)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(r, header); err != nil {
		return "", errors.New("the .npy header is cut off")
	}
	return string(header), nil
}
