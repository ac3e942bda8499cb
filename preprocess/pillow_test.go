package preprocess_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// verdict is what Pillow makes of a picture: its pixels or an error.
type verdict struct {
	width, height int
	pixels        []byte // or the text of the error
}

func (v verdict) refused() bool { return v.width == 0 }

// pillow starts testdata/pillow.py, which ends with the test.
func pillow(t *testing.T, arguments ...string) (io.Writer, *bufio.Reader) {
	t.Helper()
	python := filepath.Join("..", ".venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Skip("no .venv: make .venv/.dev")
	}
	command := exec.Command(python, append([]string{"testdata/pillow.py"}, arguments...)...) // ends with its input
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	command.Stderr = &complaints
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := command.Wait(); err != nil {
			t.Errorf("pillow.py: %v\n%s", err, complaints.String())
		}
	})
	return in, bufio.NewReaderSize(out, 1<<20)
}

func readText(t *testing.T, r io.Reader) []byte {
	t.Helper()
	var size uint32
	if err := binary.Read(r, binary.LittleEndian, &size); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		t.Fatal(err)
	}
	return text
}

func readVerdict(t *testing.T, r io.Reader) verdict {
	t.Helper()
	var size [2]uint32
	if err := binary.Read(r, binary.LittleEndian, &size); err != nil {
		t.Fatal(err)
	}
	return verdict{int(size[0]), int(size[1]), readText(t, r)}
}

// judge compares the decoder's verdict with Pillow's. A picture that both
// decode must have the same pixels. The decoder may refuse what Pillow decodes,
// but must say why; it must not decode what Pillow refuses.
func judge(d *preprocess.Decoder, data []byte, want verdict) (refusal string, err error) {
	got, decodeErr := decode(context.Background(), d, data)
	if decodeErr != nil {
		refusal = decodeErr.Error()
		switch refersam.ErrorCode(decodeErr) {
		case refersam.CodeInvalidImage, refersam.CodeUnsupportedMedia, refersam.CodeImageTooLarge:
		default:
			return refusal, decodeErr
		}
		if strings.Contains(refusal, "panic") || strings.Contains(refusal, "is broken.") {
			return refusal, fmt.Errorf("refused without a reason: %w", decodeErr)
		}
		return refusal, nil
	}
	switch {
	case want.refused():
		return "", fmt.Errorf("decoded, and Pillow says %s", want.pixels)
	case got.Width != want.width || got.Height != want.height:
		return "", fmt.Errorf("%d×%d pixels, Pillow has %d×%d", got.Width, got.Height, want.width, want.height)
	}
	for i := range want.pixels {
		if got.Pix[i] != want.pixels[i] {
			return "", fmt.Errorf("sample %d of %d is %d, Pillow's %d", i, len(got.Pix), got.Pix[i], want.pixels[i])
		}
	}
	return "", nil
}

// pillowErrs names kinds that Pillow gets wrong: it takes the packed indices of
// a bitmap with a palette of grey for grey values, one a byte, or 8-bit ones for
// single bits, and refuses a PNG for a chunk that changes no colour.
// TestDecode_BMPGrey has the right values.
var pillowErrs = regexp.MustCompile(`^(BMP of 1 bits and .* \(grey\)|BMP of 4 bits and .* \(grey\)|BMP of 8 bits and [12] colours \(grey\)|PNG of type 0 with tRNS b'.x07'$)`)

// All kinds of TIFF, BMP, PNG and GIF, and of EXIF, have Pillow's pixels or are
// refused with a reason.
func TestDecode_PillowKinds(t *testing.T) {
	_, out := pillow(t, "kinds")
	d := newDecoder(t, preprocess.DefaultConfig())
	counts := make(map[string]int)
	for {
		if _, err := out.Peek(1); err == io.EOF {
			break
		}
		name, data := string(readText(t, out)), readText(t, out)
		want := readVerdict(t, out)
		refusal, err := judge(d, data, want)
		if err != nil && !pillowErrs.MatchString(name) {
			t.Errorf("%s: %v", name, err)
		}
		format, _, _ := strings.Cut(name, " ")
		switch {
		case err != nil:
			counts[format+" other than Pillow's"]++
		case refusal == "":
			counts[format+" with Pillow's pixels"]++
		case want.refused():
			counts[format+" refused by both"]++
		default:
			counts[format+" refused"]++
			if os.Getenv("REFERSAM_REFUSED") != "" {
				t.Logf("%s: %s", name, refusal)
			}
		}
	}
	t.Log(counts)
}

// Bitmaps of 1, 4 and 8 bits with a palette of grey.
func TestDecode_BMPGrey(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	for _, tt := range []struct {
		bits    byte
		palette []byte
		row     []byte
		want    []uint8
	}{
		{1, []byte{0, 255}, []byte{0b10100000, 0, 0, 0}, []uint8{255, 0, 255}},
		{4, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, []byte{0x5f, 0x30, 0, 0}, []uint8{5, 15, 3}},
		{8, []byte{0, 255}, []byte{1, 0, 1, 0}, []uint8{255, 0, 255}},
	} {
		data := []byte("BM\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x28\x00\x00\x00\x03\x00\x00\x00\x01\x00\x00\x00\x01\x00")
		data = append(append(data, tt.bits, 0), make([]byte, 24)...)
		data[46] = byte(len(tt.palette))
		for _, grey := range tt.palette {
			data = append(data, grey, grey, grey, 0)
		}
		data[10] = byte(len(data))
		p, err := decode(t.Context(), d, append(data, tt.row...))
		if err != nil {
			t.Fatal(tt.bits, err)
		}
		for x, want := range tt.want {
			if got := p.Pix[3*x]; got != want {
				t.Errorf("%d bits: pixel %d is %d, want %d", tt.bits, x, got, want)
			}
		}
	}
}

// Files of the same kinds with bytes changed, cut out or doubled: what is still
// decoded has Pillow's pixels. REFERSAM_MANGLED says how often each is broken.
func TestDecode_PillowMangled(t *testing.T) {
	times := 3
	if n, err := strconv.Atoi(os.Getenv("REFERSAM_MANGLED")); err == nil {
		times = n
	}
	in, out := pillow(t)
	d := newDecoder(t, preprocess.DefaultConfig())
	counts := make(map[string]int)
	all := encoded(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		format := filepath.Ext(name)
		if format == ".jpg" {
			continue // libjpeg goes on where data is wrong, in its own way
		}
		random := generator(uint32(len(all[name])))
		for i := range times {
			data := mangle(all[name], &random)
			size := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
			if _, err := in.Write(append(size, data...)); err != nil {
				t.Fatal(err)
			}
			want := readVerdict(t, out)
			refusal, err := judge(d, data, want)
			switch {
			case err == nil && refusal == "":
				counts[format+" with Pillow's pixels"]++
			case err == nil && want.refused():
				counts[format+" refused by both"]++
			case err == nil:
				counts[format+" refused"]++
			case refusal == "" && want.refused():
				// Pillow checks more of what no pixel needs, such as the rest of the chunks.
				counts[format+" refused by Pillow"]++
			default:
				counts[format+" other than Pillow's"]++
				t.Errorf("%s, mangled %d: %v", name, i, err)
			}
		}
	}
	t.Log(counts)
}
