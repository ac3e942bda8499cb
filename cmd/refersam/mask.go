package main

import (
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/postprocess"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/triton"
)

type maskCommand struct {
	Logits    string  `arg:"" help:"The model's output for one phrase: an .npy file of float32 [height, width]; - reads it from standard input."`
	Width     int     `required:"" placeholder:"W" help:"Width of the picture, in pixels."`
	Height    int     `required:"" placeholder:"H" help:"Height of the picture, in pixels."`
	Resize    string  `enum:"stretch,longest_side_pad" default:"stretch" help:"How the picture became square: stretch, or longest_side_pad, where the logits are a quarter of the model's side and the part over the padding is cut off."`
	Format    string  `enum:"coco_rle,rle,polygon,png,png8,probability" default:"coco_rle" help:"coco_rle (compressed as pycocotools does), rle (uncompressed), polygon (GeoJSON), png (1 bit), png8 (8 bits) or probability (PNG of 16 bits)."`
	Output    string  `short:"o" default:"-" placeholder:"FILE" help:"Where to write it; - is standard output."`
	Threshold float64 `default:"0.5" help:"Foreground probability from which a pixel is in the mask."`
	FillHoles int     `placeholder:"N" help:"Fill holes of up to N pixels."`
	MinArea   int     `placeholder:"N" help:"Leave out components of less than N pixels."`
	Largest   bool    `help:"Leave only the largest component."`
	Tolerance float64 `placeholder:"PIXELS" help:"How far polygons may deviate from the mask; 0 follows the edges of pixels."`
}

// Run makes a mask from logits, as the service does.
func (c *maskCommand) Run(m *Main) error {
	l, err := c.read(m.Stdin)
	if err != nil {
		return err
	}
	if fit := preprocess.Fit(c.Resize); fit == preprocess.LongestSidePad {
		if c.Width < 1 || c.Height < 1 || l.Width != l.Height {
			return fmt.Errorf("the logits are %d×%d, but the picture is %d×%d pixels", l.Width, l.Height, c.Width, c.Height)
		}
		size := triton.LogitsStride * l.Width
		width, height := fit.Inside(c.Width, c.Height, size)
		if l, err = postprocess.Unpad(l, size, width, height); err != nil {
			return err
		}
	}
	mask, err := postprocess.Mask(l, c.Width, c.Height, postprocess.Options{
		Threshold: c.Threshold,
		FillHoles: c.FillHoles,
		MinArea:   c.MinArea,
		Largest:   c.Largest,
	})
	if err != nil {
		return err
	}
	return writeOutput(c.Output, m.Stdout, func(w io.Writer) error { return c.write(w, l, mask) })
}

func (c *maskCommand) read(stdin io.Reader) (refersam.Logits, error) {
	in := stdin
	if c.Logits != dash {
		file, err := os.Open(c.Logits)
		if err != nil {
			return refersam.Logits{}, err
		}
		defer file.Close()
		in = file
	}
	l, err := readNPY(in)
	if err != nil {
		return l, fmt.Errorf("logits in %s: %w", c.Logits, err)
	}
	return l, nil
}

func (c *maskCommand) write(w io.Writer, l refersam.Logits, mask *refersam.Mask) error {
	switch c.Format {
	case "png":
		return postprocess.EncodePNG(w, mask)
	case "png8":
		return postprocess.EncodePNG8(w, mask)
	case "probability":
		return postprocess.EncodeProbability(w, l, c.Width, c.Height)
	case "polygon":
		line, err := postprocess.GeoJSON(postprocess.Polygons(mask, c.Tolerance))
		return writeLine(w, line, err)
	case "rle":
		line, err := json.Marshal(api.Counts{Size: [2]int{mask.Height, mask.Width}, Counts: mask.Runs})
		return writeLine(w, line, err)
	default:
		line, err := json.Marshal(answer.NewRLE(mask))
		return writeLine(w, line, err)
	}
}

func writeLine(w io.Writer, line []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
