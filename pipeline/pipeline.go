// Package pipeline is the way of one request through the model: a picture and
// phrases in, one result per phrase out. It joins the packages that do one step
// each and knows nothing of HTTP.
package pipeline

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/tokenize"
	"github.com/refersam/refersam/triton"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// Model is the set of served models as the pipeline needs it; *triton.Fleet is
// one.
//
// Every method returns promptly when its context ends and may be called again
// after any error. Errors that may pass (a server that is away, loading or
// overloaded) are a *refersam.Error with CodeUnavailable, CodeNotReady,
// CodeOverloaded or CodeDeadlineExceeded; any other error means that the
// server and this program do not fit together. All of it is safe for
// concurrent use.
type Model interface {
	// Catalog describes every variant that is loaded, and those that should be
	// and are not. serving are the variants that are used now.
	Catalog(ctx context.Context, serving []triton.Contract) (triton.Catalog, error)
	// Probe does one real inference on a variant.
	Probe(ctx context.Context, c *triton.Contract) error
	// NewPixels returns memory for one row's picture of size bytes, held once.
	NewPixels(size int) *triton.Pixels
}

// Segmenter is a refersam.Segmenter made of a decoder, tokenizers, served
// models and the way from logits to masks. It knows no variant before Run or
// Learn has learnt them from the model, and no replica before SetReplicas.
//
// A request of it names its variant, unless only one is loaded.
type Segmenter struct {
	roster
	decoder   *preprocess.Decoder
	reuse     *reuse
	decodes   sync.WaitGroup
	decoding  duration  // of a picture, waiting for its turn included
	finishing duration  // from the last answer of a model to the last mask
	cpu       *cpuSlots // of CPU-bound steps
	pace      pace      // of decoding
}

var _ refersam.Segmenter = (*Segmenter)(nil)

// New makes a Segmenter. The caller must close it. It returns CodeNotReady
// until Run or Learn has learnt the variants.
func New(cfg Config, decoder *preprocess.Decoder, model Model, log *slog.Logger) (*Segmenter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	workers := cfg.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	s := &Segmenter{
		roster:  roster{cfg: cfg, model: model, log: log, ready: make(chan struct{}), suspect: make(chan struct{}, 1)},
		decoder: decoder,
		cpu:     newCPUSlots(workers),
	}
	s.state.Store(&state{err: &refersam.Error{Code: refersam.CodeNotReady, Message: messageLoading}})
	var err error
	if s.reuse, err = newReuse(cfg.CacheBytes, cfg.CacheTTL); err != nil {
		return nil, err
	}
	s.scheduler, err = schedule.New[Task, refersam.Logits](cfg.Schedule, func(t Task) { t.row.Pixels.Release() }, log)
	return s, err
}

// Close ends what is under way for requests that were given up. Call it when
// no call of Segment is under way.
func (s *Segmenter) Close() {
	s.scheduler.Close()
	s.decodes.Wait()
	s.reuse.close()
}

// segment is Run without a second try.
func (p *Prepared) segment(ctx context.Context, v *variant, sink *Sink) (*refersam.Response, error) {
	s, req := p.segmenter, p.request
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(noDeadline)
	}
	resp := &refersam.Response{
		Model: v.contract.Model, Variant: v.contract.Variant, Version: v.contract.Version, Checkpoint: v.contract.Checkpoint,
		Results: make([]refersam.Result, len(p.phrases)),
	}
	begun := time.Now()
	rows := v.encode(p.phrases, resp.Results)
	for i := range resp.Results {
		resp.Results[i].Phrase = req.Phrases[i].Text // as the caller wrote it, so that the caller can find it
	}
	works := p.startWork(ctx, v, deadline, rows)
	answers := make([]modelAnswer, len(p.phrases))
	arrived := make([]time.Duration, len(p.phrases)) // after begun
	finish := func(ctx context.Context, i int, picture *refersam.Picture) error {
		return p.finish(ctx, v, sink, i, &resp.Results[i], &answers[i], picture)
	}
	withPicture := sink != nil && sink.Picture
	err := each(ctx, len(p.phrases), func(ctx context.Context, i int) (err error) {
		if answers[i], err = p.await(ctx, v, deadline, &works[i]); err != nil {
			return err
		}
		arrived[i] = time.Since(begun)
		r := &resp.Results[i]
		if r.Origin = works[i].origin; r.Origin == refersam.OriginModel {
			r.ModelTime = works[i].flight.spent
		}
		if err := p.CheckSize(answers[i].width, answers[i].height); err != nil {
			return err
		}
		if withPicture {
			return nil // a request that holds a picture must not wait for answers, because they may need its memory
		}
		return finish(ctx, i, nil)
	})
	if err == nil && withPicture {
		err = s.withPicture(ctx, req.Image, func(picture *refersam.Picture) error {
			return each(ctx, len(p.phrases), func(ctx context.Context, i int) error { return finish(ctx, i, picture) })
		})
	}
	if err != nil {
		return nil, err
	}
	resp.Width, resp.Height = answers[0].width, answers[0].height
	resp.MaskWidth, resp.MaskHeight = v.maskSize(req, &answers[0])
	resp.Timings = timings(works, slices.Max(arrived), time.Since(begun))
	return resp, nil
}

// each calls f for 0 ≤ i < n at once and returns the first error, which ends
// the context of the others.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}

// timings divides the total time of a request. arrived is the time from its
// beginning to its last answer.
func timings(works []phraseWork, arrived, total time.Duration) refersam.Timings {
	var decode time.Duration
	for i := range works {
		if works[i].origin == refersam.OriginModel {
			decode = max(decode, works[i].flight.decode)
		}
	}
	decode = min(decode, arrived)
	return refersam.Timings{Decode: decode, Model: arrived - decode, Mask: total - arrived}
}

// withPicture decodes a picture for f, which must not keep it.
func (s *Segmenter) withPicture(ctx context.Context, image []byte, f func(*refersam.Picture) error) error {
	encoded, err := s.decoder.Open(ctx, image)
	if err != nil {
		return err
	}
	defer encoded.Close()
	var picture *refersam.Picture
	err = s.onCPU(ctx, encoded.Cost(), func() (err error) {
		picture, err = encoded.Decode(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return f(picture)
}

// noDeadline is how long a request may take that has no deadline.
const noDeadline = 10 * time.Minute

// encode makes rows of phrases and stores their lengths in results.
func (v *variant) encode(phrases []refersam.Phrase, results []refersam.Result) []triton.Row {
	rows := make([]triton.Row, len(phrases))
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
		results[i] = refersam.Result{PhraseID: p.ID, Tokens: encoding.Tokens, Limit: v.contract.MaxTokens}
	}
	return rows
}

// phraseWork is the work on a phrase of a request. It ends with the cached answer
// or with the answer of a flight.
type phraseWork struct {
	row    triton.Row
	origin refersam.Origin
	answer modelAnswer // if origin is OriginCache
	flight *flight     // otherwise
}

// startWork looks up every row's answer, joins the flight of another request, or
// begins a flight.
func (p *Prepared) startWork(ctx context.Context, v *variant, deadline time.Time, rows []triton.Row) []phraseWork {
	var (
		s       = p.segmenter
		all     = make([]phraseWork, len(rows))
		picture [sha256.Size]byte
		led     []*flight
		ledRows []triton.Row
	)
	if p.options.Digest != nil {
		picture = *p.options.Digest
	} else {
		picture = sha256.Sum256(p.request.Image)
	}
	for i, row := range rows {
		id := newWorkID(v.queue, picture, row.IDs, row.Mask)
		if answer, ok := s.reuse.cached(id); ok {
			all[i] = phraseWork{row: row, origin: refersam.OriginCache, answer: answer}
			continue
		}
		f, leads := s.reuse.join(id, p.request.Priority, deadline, trace.SpanContextFromContext(ctx))
		all[i] = phraseWork{row: row, origin: refersam.OriginShared, flight: f}
		if leads {
			all[i].origin = refersam.OriginModel
			led, ledRows = append(led, f), append(ledRows, row)
		}
	}
	if len(led) > 0 {
		p.begin(ctx, v, deadline, ledRows, led)
	}
	return all
}

// await returns the answer to a phrase. Work that another request began may
// fail because of the other request's deadline; await then begins it again.
func (p *Prepared) await(ctx context.Context, v *variant, deadline time.Time, w *phraseWork) (modelAnswer, error) {
	for w.origin != refersam.OriginCache {
		if err := p.segmenter.arrive(ctx, w); err != nil {
			return modelAnswer{}, err
		}
		switch code := refersam.ErrorCode(w.flight.err); {
		case code == "":
			return w.flight.answer, nil
		case w.origin == refersam.OriginModel,
			code != refersam.CodeDeadlineExceeded && code != refersam.CodeOverloaded,
			!deadline.After(w.flight.deadline):
			return modelAnswer{}, w.flight.err
		}
		*w = p.startWork(ctx, v, deadline, []triton.Row{w.row})[0]
	}
	return w.answer, nil
}

// arrive waits until a flight is done. If another request began the flight, the
// wait is a step of the trace, linked with the other request.
func (s *Segmenter) arrive(ctx context.Context, w *phraseWork) error {
	if w.origin == refersam.OriginShared {
		_, span := beginSpan(ctx, "shared", trace.WithLinks(trace.Link{SpanContext: w.flight.leader}))
		defer span.End()
	}
	select {
	case <-ctx.Done():
		s.reuse.leave(w.flight)
		return ctx.Err()
	case <-w.flight.done:
		return nil
	}
}

// input is a picture as the model reads it, and its own size.
type input struct {
	pixels        *triton.Pixels
	width, height int
}

// read decodes the picture of a request with the given number of phrases and
// scales it to the square that c requires. It waits for memory before it takes
// a place on the CPU, because a waiting request must not keep the place from
// others. A picture that cannot be decoded before the deadline is refused at
// once.
func (s *Segmenter) read(ctx context.Context, image []byte, phrases int, c *triton.Contract) (*input, error) {
	encoded, err := s.decoder.Open(ctx, image)
	if err != nil {
		return nil, err
	}
	defer encoded.Close()
	var in input
	in.width, in.height = encoded.Size()
	if err := s.checkSize(in.width, in.height, phrases); err != nil {
		return nil, err
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
		pixels := s.model.NewPixels(3 * c.ImageSize * c.ImageSize)
		if err := encoded.SquareInto(ctx, pixels.Bytes(), c.ImageSize, preprocess.Fit(c.Resize)); err != nil {
			pixels.Release()
			return err
		}
		s.pace.learn(cost, time.Since(start))
		in.pixels = pixels
		return nil
	})
	return &in, err
}

// maskCost is the cost of v.finish and of encoding the mask: 3 ms for 1920×1080
// pixels, a third of what decoding takes.
func maskCost(width, height int) int64 { return int64(width) * int64(height) / 3 }

// finish turns the model's answer into the rest of the i-th result.
func (p *Prepared) finish(ctx context.Context, v *variant, sink *Sink, i int, r *refersam.Result, answer *modelAnswer, picture *refersam.Picture) (err error) {
	s, begun := p.segmenter, time.Now()
	ctx, span := beginSpan(ctx, "mask", trace.WithAttributes(attribute.Int("refersam.result", i)))
	defer func() {
		s.finishing.add(time.Since(begun))
		endSpan(span, err)
	}()
	cost := maskCost(answer.width, answer.height)
	if sink != nil {
		cost *= int64(1 + sink.Weight)
	}
	return s.onCPU(ctx, cost, func() error {
		logits, err := v.finish(p.request, r, answer, &p.phrases[i])
		if err != nil || sink == nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err = sink.Encode(i, r, Origin{logits, picture})
		r.Mask = nil
		return err
	})
}

// finish also returns the logits that the mask is made of.
func (v *variant) finish(req *refersam.Request, r *refersam.Result, answer *modelAnswer, p *refersam.Phrase) (refersam.Logits, error) {
	logits := answer.logits
	if fit := preprocess.Fit(v.contract.Resize); fit == preprocess.LongestSidePad {
		width, height := fit.Inside(answer.width, answer.height, v.contract.ImageSize)
		var err error
		if logits, err = postprocess.Unpad(logits, v.contract.ImageSize, width, height); err != nil {
			return logits, err
		}
	}
	o := postprocess.Options{Threshold: p.Threshold, FillHoles: p.FillHoles, MinArea: p.MinArea, Largest: p.Largest}
	if o.Threshold == 0 {
		o.Threshold = v.contract.Threshold
	}
	width, height := v.maskSize(req, answer)
	seg, err := postprocess.Segment(logits, width, height, o)
	if err != nil {
		return logits, err
	}
	r.Mask, r.Score, r.Area, r.Box = seg.Mask, seg.Score, seg.Area, seg.Box
	if req.Quality {
		r.Components = len(postprocess.Components(seg.Mask))
		r.Stability, err = postprocess.Stability(logits, width, height, o.Threshold, stabilityDelta)
	}
	return logits, err
}

// stabilityDelta is how far the thresholds of Stability lie from a mask's own,
// in logits, as in Segment Anything.
const stabilityDelta = 1

// maskSize is the size of the masks that req asks for.
func (v *variant) maskSize(req *refersam.Request, answer *modelAnswer) (width, height int) {
	if req.Size == refersam.SizeModel {
		return preprocess.Fit(v.contract.Resize).Inside(answer.width, answer.height, v.contract.LogitsSize())
	}
	return answer.width, answer.height
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
