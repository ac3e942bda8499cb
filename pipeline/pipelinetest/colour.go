// Package pipelinetest has a model that needs no weights, for tests of what
// surrounds the model.
package pipelinetest

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/tokenize"
	"github.com/refersam/refersam/triton"
)

const (
	imageSize = 128
	stride    = 4 // pixels a logit along each axis
)

// ColourModel is a pipeline.Model, and its only pipeline.Replica, that finds
// colours. A phrase with the word red, green or blue means the pixels with a
// dominant red, green or blue channel. Any other phrase means nothing. It reads
// the phrase from the token ids and the picture from the resized pixels, as a
// real model does.
type ColourModel struct {
	contracts []triton.Contract
	words     map[string][3]int32 // by tokenizer: the ids of red, green and blue

	mu      sync.Mutex
	down    error
	broken  []triton.Broken
	before  func(context.Context) error
	batches []int
	probes  int

	held atomic.Int64
}

// NewColourModel makes a model with the named variants; "clip" gets CLIP's
// tokenizer, every other one BERT's.
func NewColourModel(variants ...string) *ColourModel {
	m := &ColourModel{words: make(map[string][3]int32)}
	for _, variant := range variants {
		c := triton.Contract{
			Model:      triton.ModelPrefix + variant,
			Variant:    variant,
			Version:    "1",
			Tokenizer:  "bert-base-uncased",
			MaxTokens:  16,
			ImageSize:  imageSize,
			MaxBatch:   8,
			Resize:     "stretch",
			Upsample:   "bilinear_align_corners",
			Threshold:  0.5,
			Checkpoint: strings.Repeat("0", 64),
			Precision:  "fp32",
			Label:      "demo",
		}
		if variant == "clip" {
			c.Tokenizer = "clip-vit-large-patch14"
		}
		tokenizer, err := tokenize.New(c.Tokenizer, c.MaxTokens)
		if err != nil {
			panic(err)
		}
		var ids [3]int32
		for i, word := range []string{"red", "green", "blue"} {
			ids[i] = tokenizer.Encode(word).IDs[1] // after the start token
		}
		m.words[c.Tokenizer] = ids
		m.contracts = append(m.contracts, c)
	}
	return m
}

// SetDown makes every call fail with err, until it is set to nil.
func (m *ColourModel) SetDown(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
}

// SetContract changes what the model says of itself.
func (m *ColourModel) SetContract(change func(c *triton.Contract)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.contracts {
		change(&m.contracts[i])
	}
}

// SetBefore makes each Infer call f first; Infer returns the error of f.
func (m *ColourModel) SetBefore(f func(context.Context) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = f
}

// Batches returns how many rows each Infer had, largest first.
func (m *ColourModel) Batches() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	sizes := slices.Clone(m.batches)
	slices.SortFunc(sizes, func(a, b int) int { return b - a })
	return sizes
}

// Probes returns how often Probe was called.
func (m *ColourModel) Probes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.probes
}

// SetBroken makes the model say that ensembles are broken.
func (m *ColourModel) SetBroken(broken ...triton.Broken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

// Catalog implements pipeline.Model. A broken ensemble is not among the
// contracts.
func (m *ColourModel) Catalog(context.Context, []triton.Contract) (triton.Catalog, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	catalog := triton.Catalog{Broken: slices.Clone(m.broken), Complete: true}
	for _, c := range m.contracts {
		if !slices.ContainsFunc(m.broken, func(b triton.Broken) bool { return b.Model == c.Model }) {
			catalog.Contracts = append(catalog.Contracts, c)
		}
	}
	return catalog, m.down
}

// Probe implements pipeline.Model.
func (m *ColourModel) Probe(context.Context, *triton.Contract) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probes++
	return m.down
}

// NewPixels implements pipeline.Model.
func (m *ColourModel) NewPixels(size int) *triton.Pixels {
	m.held.Add(1)
	return triton.PixelsOf(make([]uint8, size), func() { m.held.Add(-1) })
}

// Held returns how many pictures are held.
func (m *ColourModel) Held() int { return int(m.held.Load()) }

// Name implements pipeline.Replica.
func (m *ColourModel) Name() string { return "colour" }

// Statistics implements pipeline.Replica: it has none.
func (m *ColourModel) Statistics(context.Context, *triton.Contract) (triton.Statistics, error) {
	return triton.Statistics{}, nil
}

// Infer implements pipeline.Replica.
func (m *ColourModel) Infer(ctx context.Context, c *triton.Contract, rows []triton.Row) ([]refersam.Logits, error) {
	m.mu.Lock()
	down, before := m.down, m.before
	m.batches = append(m.batches, len(rows))
	m.mu.Unlock()
	if down != nil {
		return nil, down
	}
	if before != nil {
		if err := before(ctx); err != nil {
			return nil, err
		}
	}
	if len(rows) > c.MaxBatch {
		return nil, fmt.Errorf("%d rows, at most %d", len(rows), c.MaxBatch)
	}
	logits := make([]refersam.Logits, len(rows))
	for i, row := range rows {
		logits[i] = m.logits(c, row)
	}
	return logits, nil
}

func (m *ColourModel) logits(c *triton.Contract, row triton.Row) refersam.Logits {
	ids := m.words[c.Tokenizer]
	channel := -1
	for i, id := range row.IDs {
		if j := slices.Index(ids[:], id); j >= 0 && row.Mask[i] == 1 {
			channel = j
		}
	}
	side := c.ImageSize / stride
	l := refersam.Logits{Width: side, Height: side, Values: make([]float32, side*side)}
	for i := range l.Values {
		// The pixel in the middle of the square that the logit stands for.
		x, y := i%side*stride+stride/2, i/side*stride+stride/2
		pixel := row.Pixels.Bytes()[3*(y*c.ImageSize+x):][:3]
		l.Values[i] = -8
		if channel >= 0 && int(pixel[channel]) > 64+int(pixel[(channel+1)%3]) && int(pixel[channel]) > 64+int(pixel[(channel+2)%3]) {
			l.Values[i] = 8
		}
	}
	return l
}

// Squares returns a PNG of 320 × 240 pixels on which ColourModel finds
// something: a red square at Red, a blue one at Blue, nothing green.
func Squares() []byte {
	picture := image.NewRGBA(image.Rect(0, 0, 320, 240))
	draw.Draw(picture, picture.Bounds(), image.NewUniform(color.Gray{230}), image.Point{}, draw.Src)
	draw.Draw(picture, Red, image.NewUniform(color.RGBA{200, 30, 30, 255}), image.Point{}, draw.Src)
	draw.Draw(picture, Blue, image.NewUniform(color.RGBA{30, 40, 200, 255}), image.Point{}, draw.Src)
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// Where the squares of Squares are.
var (
	Red  = image.Rect(40, 60, 120, 140)
	Blue = image.Rect(200, 100, 280, 180)
)
