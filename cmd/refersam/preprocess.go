package main

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"io"

	"github.com/refersam/refersam/preprocess"
)

type preprocessCommand struct {
	Picture string `arg:"" help:"A JPEG, PNG, WebP, GIF, BMP or TIFF; - reads it from standard input."`
	Size    int    `required:"" placeholder:"S" help:"Side of the square that the model reads, in pixels."`
	Resize  string `enum:"stretch,longest_side_pad" default:"stretch" help:"How the picture becomes square: stretch, or longest_side_pad (aspect ratio kept, padded right or below), as the model's parameter resize says."`
	Output  string `short:"o" required:"" placeholder:"FILE" help:"Where to write it, as PNG; - is standard output."`
}

// maxModelSide is larger than any model's input; SAM's is 1024.
const maxModelSide = 4096

// Run writes the pixels that a model of that size gets.
func (c *preprocessCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	if c.Size < 1 || c.Size > maxModelSide {
		return fmt.Errorf("--size is %d, allowed: 1 to %d", c.Size, maxModelSide)
	}
	decoder, err := preprocess.New(cfg.Preprocess)
	if err != nil {
		return err
	}
	data, err := readPicture(c.Picture, m.Stdin, cfg.Preprocess.MaxBytes)
	if err != nil {
		return err
	}
	encoded, err := decoder.Open(ctx, data)
	if err != nil {
		return err
	}
	defer encoded.Close()
	pixels, err := encoded.Square(ctx, c.Size, preprocess.Fit(c.Resize))
	if err != nil {
		return err
	}
	square := image.NewNRGBA(image.Rect(0, 0, c.Size, c.Size))
	for i := 0; len(pixels) > 0; i, pixels = i+4, pixels[3:] {
		copy(square.Pix[i:], pixels[:3])
		square.Pix[i+3] = 255
	}
	return writeOutput(c.Output, m.Stdout, func(w io.Writer) error { return png.Encode(w, square) })
}
