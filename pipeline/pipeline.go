// Package pipeline is the way of one request through the model: a picture and
// phrases in, one result a phrase out. It joins the rooms that know one step
// each and knows nothing of HTTP.
package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/tokenize"
	"github.com/refersam/refersam/triton"
	"golang.org/x/sync/errgroup"
)

// Model is the served model as the pipeline needs it; *triton.Client is one
// whose servers take turns.
//
// Every method returns promptly when its context ends and may be called again
// after any error. Errors that may pass (a server that is away, loading or
// overloaded) are a *refersam.Error with CodeUnavailable, CodeNotReady,
// CodeOverloaded or CodeDeadlineExceeded; any other error means that the
// server and this program do not fit together. All of it is safe for
// concurrent use.
type Model interface {
	// Contracts describes every variant that is loaded.
	Contracts(ctx context.Context) ([]triton.Contract, error)
	// Probe does one real inference on a variant.
	Probe(ctx context.Context, c *triton.Contract) error
	// Infer runs at most c.MaxBatch rows and returns one Logits a row, in
	// order. It does not change the rows.
	Infer(ctx context.Context, c *triton.Contract, rows []triton.Row) ([]refersam.Logits, error)
}

// Segmenter is a refersam.Segmenter made of a decoder, tokenizers, a served
// model and the way from logits to masks. It knows no variant before Run or
// Learn has learnt them from the model.
//
// The Field of its errors is a JSON pointer into refersam.Request with lower
// case names: "/image", "/variant", "/phrases", "/phrases/3",
// "/phrases/3/threshold".
type Segmenter struct {
	cfg     Config
	decoder *preprocess.Decoder
	model   Model
	log     *slog.Logger

	state   atomic.Pointer[state] // never nil
	ready   chan struct{}         // closed by readyOnce when Ready is first nil
	suspect chan struct{}         // capacity 1: the model failed, look at it
	cpu     *places               // of CPU-bound steps
	pace    pace                  // of decoding

	readyOnce sync.Once
}

var _ refersam.Segmenter = (*Segmenter)(nil)

// New makes a Segmenter. It answers CodeNotReady until Run or Learn has learnt
// the variants.
func New(cfg Config, decoder *preprocess.Decoder, model Model, log *slog.Logger) (*Segmenter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	workers := cfg.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	s := &Segmenter{
		cfg:     cfg,
		decoder: decoder,
		model:   model,
		log:     log,
		ready:   make(chan struct{}),
		suspect: make(chan struct{}, 1),
		cpu:     newPlaces(workers),
	}
	s.state.Store(&state{err: &refersam.Error{Code: refersam.CodeNotReady, Message: messageLoading}})
	return s, nil
}

// Segment implements refersam.Segmenter.
func (s *Segmenter) Segment(ctx context.Context, req *refersam.Request) (*refersam.Response, error) {
	phrases, err := s.normalize(req.Phrases)
	if err != nil {
		return nil, err
	}
	v, err := s.choose(req)
	if err != nil {
		return nil, err
	}
	resp, err := s.segment(ctx, v, req, phrases)
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, &refersam.Error{
			Code:    refersam.CodeDeadlineExceeded,
			Message: "The request could not be answered in time.",
			Err:     err,
		}
	case refersam.ErrorCode(err) == refersam.CodeUnavailable:
		s.doubt()
	}
	return nil, err
}

func (s *Segmenter) segment(ctx context.Context, v *variant, req *refersam.Request, phrases []refersam.Phrase) (*refersam.Response, error) {
	var (
		resp = &refersam.Response{Model: v.contract.Model, Variant: v.contract.Variant, Version: v.contract.Version}
		rows = make([]triton.Row, len(phrases))
	)
	resp.Results = make([]refersam.Result, len(phrases))
	// The rows live until they are answered; they share one piece of memory.
	tokens := make([]int32, 2*len(phrases)*v.contract.MaxTokens)
	take := func() (piece []int32) {
		piece, tokens = tokens[:0:v.contract.MaxTokens], tokens[v.contract.MaxTokens:]
		return piece
	}
	for i, p := range phrases {
		encoding := tokenize.Encoding{IDs: take(), Mask: take()}
		v.tokenizer.EncodeInto(&encoding, p.Text)
		rows[i].IDs, rows[i].Mask = encoding.IDs, encoding.Mask
		resp.Results[i] = refersam.Result{PhraseID: p.ID, Tokens: encoding.Tokens, Limit: v.contract.MaxTokens}
	}
	picture, err := s.read(ctx, req.Image, len(phrases), &v.contract)
	if err != nil {
		return nil, at("/image", err)
	}
	resp.Width, resp.Height = picture.width, picture.height
	for i := range rows {
		rows[i].Pixels = picture.pixels
	}

	g, ctx := errgroup.WithContext(ctx)
	for start := 0; start < len(rows); start += v.contract.MaxBatch {
		end := min(start+v.contract.MaxBatch, len(rows))
		g.Go(func() error {
			logits, err := s.model.Infer(ctx, &v.contract, rows[start:end])
			if err != nil {
				return err
			}
			for i, l := range logits {
				g.Go(func() error {
					return s.onCPU(ctx, maskCost(picture), func() error {
						threshold := phrases[start+i].Threshold
						if threshold == 0 {
							threshold = v.contract.Threshold
						}
						r := &resp.Results[start+i]
						if err := finish(r, l, picture, &v.contract, threshold); err != nil || req.Encode == nil {
							return err
						}
						if err := ctx.Err(); err != nil {
							return err
						}
						defer func() { r.Mask = nil }()
						return req.Encode(start+i, r)
					})
				})
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return resp, nil
}

// input is a picture as the model reads it, and its own size.
type input struct {
	pixels        *triton.Pixels
	width, height int
}

// read decodes a picture that is asked the given number of phrases and makes it
// the square that c asks for. It waits for memory before it takes a place on
// the CPU, so that who waits keeps nobody from working. A picture that cannot
// be decoded before the deadline is refused at once.
func (s *Segmenter) read(ctx context.Context, image []byte, phrases int, c *triton.Contract) (*input, error) {
	encoded, err := s.decoder.Open(ctx, image)
	if err != nil {
		return nil, err
	}
	defer encoded.Close()
	var in input
	in.width, in.height = encoded.Size()
	if most := s.cfg.MaxMaskPixels / (in.width * in.height); most < phrases {
		return nil, refersam.Errorf(refersam.CodeImageTooLarge, "A picture of %d × %d pixels can be asked at most %d phrases at once, not %d.",
			in.width, in.height, most, phrases)
	}
	cost := encoded.Cost()
	inTime := func() error {
		if deadline, ok := ctx.Deadline(); ok {
			return s.pace.check(cost, deadline)
		}
		return nil
	}
	if err := inTime(); err != nil {
		return nil, err
	}
	err = s.onCPU(ctx, cost, func() error {
		if err := inTime(); err != nil { // it may have waited long
			return err
		}
		start := time.Now()
		pixels, err := encoded.Square(ctx, c.ImageSize, preprocess.Fit(c.Resize))
		if err != nil {
			return err
		}
		s.pace.learn(cost, time.Since(start))
		in.pixels = triton.PixelsOf(pixels)
		return nil
	})
	return &in, err
}

// maskCost is the cost of finish and of encoding the mask: 3 ms for 1920×1080
// pixels, a third of what decoding takes.
func maskCost(p *input) int64 { return int64(p.width) * int64(p.height) / 3 }

// finish turns one row of logits into the rest of a result.
func finish(r *refersam.Result, l refersam.Logits, picture *input, c *triton.Contract, threshold float64) error {
	if fit := preprocess.Fit(c.Resize); fit == preprocess.LongestSidePad {
		width, height := fit.Inside(picture.width, picture.height, c.ImageSize)
		var err error
		if l, err = postprocess.Unpad(l, c.ImageSize, width, height); err != nil {
			return err
		}
	}
	seg, err := postprocess.Segment(l, picture.width, picture.height, postprocess.Options{Threshold: threshold})
	if err != nil {
		return err
	}
	r.Mask, r.Score, r.Area, r.Box = seg.Mask, seg.Score, seg.Area, seg.Box
	return nil
}

// onCPU runs f, a step of a cost, when fewer than Workers others run and its
// turn has come, and not at all once ctx has ended.
func (s *Segmenter) onCPU(ctx context.Context, cost int64, f func() error) error {
	release, err := s.cpu.acquire(ctx, cost)
	if err != nil {
		return err
	}
	defer release()
	return f()
}

// at tells the client which field of the request an error is about.
func at(field string, err error) error {
	var e *refersam.Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Field = field
	return &named
}
