package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/triton"
)

// Options are what a caller may add to a request. The zero Options add nothing.
type Options struct {
	// Key names the owner of the work: when there is too much to do, keys of the
	// same priority share evenly.
	Key string
	// Digest is the SHA-256 of the picture, if the caller has computed it anyway.
	Digest *[sha256.Size]byte
}

// Sink takes the results of a request one by one, so that the masks of a request
// are never all in memory.
type Sink struct {
	// Encode is called once for each result as soon as its mask is made, with the
	// index of the phrase, and for several results at once. The mask is dropped
	// thereafter: it is nil in the Response. An error ends the request.
	Encode func(i int, r *refersam.Result, from Origin) error
	// Picture asks for the decoded picture. It takes 3 bytes per pixel until the
	// request is answered. It is decoded when the model has answered all phrases.
	Picture bool
	// Weight is roughly how many times as long Encode takes as making the mask, so
	// that it waits its turn on the CPU; 0 is once.
	Weight int
}

// Origin is what a mask was made of. It is valid until Encode returns.
type Origin struct {
	// Logits are the picture's part of the model's answer, stretched to its size.
	Logits refersam.Logits
	// Picture is the upright picture if Sink.Picture asks for it, else nil.
	Picture *refersam.Picture
}

// Prepared is a request that can be answered, now or when its variant can be used
// again.
type Prepared struct {
	segmenter *Segmenter
	request   *refersam.Request
	options   Options
	phrases   []refersam.Phrase // normalised
}

// Prepare returns a request that Run can answer. Its error is what is wrong with the
// request and no wait will mend: its phrases, or a variant that does not exist. The
// request must not change until Run has
// returned. It need not have a picture if Run is not called.
func (s *Segmenter) Prepare(req *refersam.Request, options Options) (*Prepared, error) {
	phrases, err := s.normalize(req.Phrases)
	if err != nil {
		return nil, err
	}
	if err := s.CheckVariant(req.Variant); refersam.ErrorCode(err) == refersam.CodeUnknownVariant {
		return nil, err
	}
	return &Prepared{s, req, options, phrases}, nil
}

// Contract describes the model that Run would ask now, or returns why its variant
// cannot be used.
func (p *Prepared) Contract() (triton.Contract, error) {
	v, err := p.segmenter.variant(p.request.Variant)
	if err != nil {
		return triton.Contract{}, err
	}
	return v.contract, nil
}

// Header reads the header of the picture. It returns the errors that Run would
// return about the picture, as far as the header shows them.
func (p *Prepared) Header() (preprocess.Header, error) {
	h, err := p.segmenter.decoder.Header(p.request.Image)
	if err != nil {
		return h, err
	}
	return h, p.CheckSize(h.Width, h.Height)
}

// CheckSize returns the error that Run would return for a picture of width ×
// height pixels, both positive.
func (p *Prepared) CheckSize(width, height int) error {
	return p.segmenter.checkSize(width, height, len(p.phrases))
}

func (s *Segmenter) checkSize(width, height, phrases int) error {
	most := s.cfg.MaxMaskPixels / (width * height)
	if phrases <= most {
		return nil
	}
	err := refersam.Errorf(refersam.CodeImageTooLarge,
		"A picture of %d × %d pixels can be asked at most %d phrases at once, not %d.", width, height, most, phrases)
	err.At = refersam.AtImage
	return err
}

// Run answers the request. sink may be nil: then the results hold their masks.
// See refersam.Segmenter for the errors.
func (p *Prepared) Run(ctx context.Context, sink *Sink) (*refersam.Response, error) {
	s := p.segmenter
	v, err := s.variant(p.request.Variant)
	if err != nil {
		return nil, err
	}
	resp, err := p.segment(ctx, v, sink)
	if refersam.ErrorCode(err) == refersam.CodeNotReady && ctx.Err() == nil {
		// Another checkpoint may have been taken over meanwhile.
		if now, variantErr := s.variant(p.request.Variant); variantErr == nil && now.contract != v.contract {
			resp, err = p.segment(ctx, now, sink)
		}
	}
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, refersam.Late(err)
	case refersam.ErrorCode(err) == refersam.CodeUnavailable, refersam.ErrorCode(err) == refersam.CodeNotReady:
		s.recheckSoon()
	}
	return nil, err
}

// Segment implements refersam.Segmenter.
func (s *Segmenter) Segment(ctx context.Context, req *refersam.Request) (*refersam.Response, error) {
	p, err := s.Prepare(req, Options{})
	if err != nil {
		return nil, err
	}
	return p.Run(ctx, nil)
}
