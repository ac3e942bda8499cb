// Package answer turns one question, a picture and phrases, into one answer: it
// brings the picture, segments the phrases, encodes the masks, and counts the
// usage. It knows no HTTP. Its callers are requests, items of a batch and items of
// a job.
package answer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/triton"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
)

// Segmenter finds masks; *experiment.Segmenter is one. All of it is safe for
// concurrent use.
type Segmenter interface {
	// Assign returns the variant that a client has named, or else the variant of
	// its unit.
	Assign(named, unit string) experiment.Assignment
	// Prepare checks a request that the variant of an assignment is to answer.
	Prepare(req *refersam.Request, a experiment.Assignment, options pipeline.Options) (*experiment.Prepared, error)
	// CheckVariant returns why the variant of an assignment cannot be used now, or nil.
	CheckVariant(a experiment.Assignment) error
}

// Fetcher downloads from addresses that clients name; *fetch.Client is one. It
// decides which addresses are allowed. Errors are a *refersam.Error.
type Fetcher interface {
	// Picture calls reserve with the largest possible number of bytes before it
	// reads them.
	Picture(ctx context.Context, url string, most int64, reserve func(ctx context.Context, bytes int64) error) ([]byte, error)
	// CheckPicture and CheckWebhook refuse an address without a connection.
	CheckPicture(url string) error
	CheckWebhook(url string) error
}

// Config bounds the memory and the time of answers.
type Config struct {
	// RequestTimeout is how long an answer may take once the request has been
	// read. Default 30s.
	RequestTimeout time.Duration `env:"REFERSAM_REQUEST_TIMEOUT"`
	// BodyMemory is the memory that the bodies of all requests in flight may take
	// together, in bytes. Each announced byte counts three times. Further requests
	// wait for at most RequestTimeout. A body that needs more than all of the
	// memory gets all of it, and no other body runs meanwhile. Default 536870912
	// (512 MiB).
	BodyMemory int64 `env:"REFERSAM_BODY_MEMORY_BYTES"`
	// AnswerMemory is the memory that the masks of all answers in flight may take
	// together, in bytes. Each byte of a mask counts three times. An answer that
	// needs more is refused. Default 536870912 (512 MiB).
	AnswerMemory int64 `env:"REFERSAM_ANSWER_MEMORY_BYTES"`
	// JobPatience is how long an item of a job is retried if its client sets no
	// deadline. Default 24h.
	JobPatience time.Duration `env:"REFERSAM_JOBS_PATIENCE"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{RequestTimeout: 30 * time.Second, BodyMemory: 512 << 20, AnswerMemory: 512 << 20, JobPatience: 24 * time.Hour}
}

// Validate reports all faults of c.
func (c *Config) Validate() error {
	var errs []error
	if c.RequestTimeout <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_REQUEST_TIMEOUT is %v, allowed: more than 0s", c.RequestTimeout))
	}
	if c.BodyMemory < 1 {
		errs = append(errs, fmt.Errorf("REFERSAM_BODY_MEMORY_BYTES is %d, allowed: 1 or more", c.BodyMemory))
	}
	if c.AnswerMemory < 1 {
		errs = append(errs, fmt.Errorf("REFERSAM_ANSWER_MEMORY_BYTES is %d, allowed: 1 or more", c.AnswerMemory))
	}
	if c.JobPatience <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_JOBS_PATIENCE is %v, allowed: more than 0s", c.JobPatience))
	}
	return errors.Join(errs...)
}

// Parts are the collaborators of a Service. The Service does not close them.
type Parts struct {
	Segmenter Segmenter
	// MaxImage is the size of the largest encoded picture that Segmenter accepts,
	// in bytes.
	MaxImage int64
	Images   *images.Keeper
	Fetcher  Fetcher
	Meter    *access.Meter
	// Traces makes the spans of the items of jobs.
	Traces trace.TracerProvider
	Log    *slog.Logger
}

// Service answers questions. All methods are safe for concurrent use.
type Service struct {
	Parts
	cfg    Config
	memory *Memory
	masks  *semaphore.Weighted // bytes of memory for encoded masks
}

// New makes a Service. cfg must be valid.
func New(cfg Config, parts Parts) *Service {
	return &Service{Parts: parts, cfg: cfg, memory: NewMemory(cfg.BodyMemory), masks: semaphore.NewWeighted(cfg.AnswerMemory)}
}

// BodyCost is how many bytes of memory each byte of a body takes at most: a growing
// buffer takes up to two more bytes for the byte that it replaces, or base64 is
// decoded next to it.
const BodyCost = 3

// Lease returns an empty lease of the memory for bodies and pictures. The
// caller must close it.
func (s *Service) Lease(fairnessKey string) *Lease { return s.memory.Lease(fairnessKey) }

// Budget returns an empty budget for the masks of an answer. The caller must
// release it.
func (s *Service) Budget() *Budget { return &Budget{memory: s.masks} }

// ReserveResult reserves answer memory for a stored result of n bytes. It never
// blocks, because masks that are being encoded need the same memory and cannot
// wait.
func (s *Service) ReserveResult(n int64) (release func(), err error) {
	n = min(n, s.cfg.AnswerMemory)
	if !s.masks.TryAcquire(n) {
		return nil, refersam.Errorf(refersam.CodeOverloaded, "The service is out of answer memory; retry shortly.")
	}
	return func() { s.masks.Release(n) }, nil
}

// Picture is an encoded picture exactly as it was sent, and its SHA-256.
type Picture = images.Picture

// bring returns the picture of a question. A picture that was not sent with the
// request takes memory from lease.
func (s *Service) bring(ctx context.Context, who Caller, from *Source, lease *Lease) (_ *Picture, err error) {
	if from.Data == nil {
		var span trace.Span
		ctx, span = trace.SpanFromContext(ctx).TracerProvider().Tracer(traceScope).Start(ctx, "fetch")
		defer func() { endSpan(span, err) }()
	}
	switch {
	case from.ID != "":
		image, err := s.Images.Find(ctx, who.Account, from.ID)
		if err != nil {
			return nil, inImage(err)
		}
		content, err := s.Images.Content(ctx, image, lease.Take)
		if err != nil {
			return nil, inImage(err)
		}
		digest, _ := images.Digest(image.ID)
		return &Picture{Content: content, Digest: digest}, nil
	case from.URL != "":
		return s.fetch(ctx, from, lease)
	case from.Object != "":
		return s.stored(ctx, from, lease)
	default:
		return &Picture{Content: from.Data, Digest: sha256.Sum256(from.Data)}, nil
	}
}

func (s *Service) fetch(ctx context.Context, from *Source, lease *Lease) (*Picture, error) {
	if err := s.checkURL(from); err != nil {
		return nil, err
	}
	content, err := s.Fetcher.Picture(ctx, from.URL, s.MaxImage, func(ctx context.Context, bytes int64) error {
		return lease.Take(ctx, BodyCost*bytes)
	})
	if err != nil {
		return nil, inImage(err)
	}
	return &Picture{Content: content, Digest: sha256.Sum256(content)}, nil
}

// CheckWebhook refuses an address that no job may report its end to.
func (s *Service) CheckWebhook(url string, naming Naming) error {
	return refersam.Rename(at(refersam.AtWebhook, s.Fetcher.CheckWebhook(url)), naming.Name)
}

func (s *Service) checkURL(from *Source) error { return inImage(s.Fetcher.CheckPicture(from.URL)) }

func (s *Service) stored(ctx context.Context, from *Source, lease *Lease) (*Picture, error) {
	if err := lease.Take(ctx, from.Bytes); err != nil {
		return nil, err
	}
	content, err := s.Images.Object(ctx, from.Object, from.Bytes)
	if errors.Is(err, blobs.ErrNotFound) {
		s.Log.Warn("the picture of a job is missing", "object", from.Object)
		return nil, &refersam.Error{Code: refersam.CodeImageNotFound, Message: "The picture of the job is gone; submit the job again.", At: refersam.AtImage, Err: err}
	}
	if err != nil {
		return nil, err
	}
	return &Picture{Content: content, Digest: sha256.Sum256(content)}, nil
}

// Keep brings a picture and stores it for the caller's key. It reports whether the
// picture is new.
func (s *Service) Keep(ctx context.Context, who Caller, from *Source, lease *Lease) (*store.Image, bool, error) {
	p, err := s.bring(ctx, who, from, lease)
	if err != nil {
		return nil, false, refersam.Rename(err, from.name)
	}
	image, created, err := s.Images.Keep(ctx, who.Account, *p)
	return image, created, refersam.Rename(err, from.name)
}

// Prepared is a question with its picture. It can be answered once.
type Prepared struct {
	service  *Service
	who      Caller
	Question *Question
	// Digest is the SHA-256 of the encoded picture.
	Digest  [sha256.Size]byte
	inner   *experiment.Prepared
	begun   time.Time
	fetched time.Duration
}

// Prepare brings the picture of a question and draws its variant. lease provides
// the memory for the picture; the caller must hold lease until the answer has been
// made. Errors carry the client's names.
func (s *Service) Prepare(ctx context.Context, who Caller, q *Question, lease *Lease) (*Prepared, error) {
	begun := time.Now()
	pic, err := s.bring(ctx, who, &q.Source, lease)
	if err != nil {
		return nil, refersam.Rename(err, q.Name)
	}
	fetched := time.Since(begun)
	inner, err := s.Segmenter.Prepare(q.request(who, pic.Content), s.assign(who, q), pipeline.Options{Key: who.FairnessKey, Digest: &pic.Digest})
	if err != nil {
		return nil, refersam.Rename(err, q.Name)
	}
	return &Prepared{service: s, who: who, Question: q, Digest: pic.Digest, inner: inner, begun: begun, fetched: fetched}, nil
}

// assign returns the variant that answers a question.
func (s *Service) assign(who Caller, q *Question) experiment.Assignment {
	if q.Drawn {
		return experiment.Assignment{Variant: q.Variant}
	}
	return s.Segmenter.Assign(q.Variant, who.Unit)
}

// CheckVariant returns the error that all questions of a caller with this variant
// would get because of it.
func (s *Service) CheckVariant(who Caller, variant string) error {
	return refersam.Rename(s.Segmenter.CheckVariant(s.Segmenter.Assign(variant, who.Unit)), Naming{}.Name)
}

// Contract describes the model that would answer now, or returns why it cannot.
func (p *Prepared) Contract() (triton.Contract, error) { return p.inner.Contract() }

// Answered is an answer that has not been written yet.
type Answered struct {
	Response *refersam.Response
	Answer   *api.Answer
	masks    []api.AnswerMasks
	overlay  string
}

// Answer makes and encodes the masks, with memory from budget, and counts the
// usage. read is how long the caller took to read the request. Errors carry the
// client's names.
func (p *Prepared) Answer(ctx context.Context, budget *Budget, read time.Duration) (*Answered, error) {
	s, q := p.service, p.Question
	encoder := encoder{question: q, masks: make([]api.AnswerMasks, len(q.Prompts)), budget: budget}
	sink := pipeline.Sink{Encode: encoder.encode, Picture: q.Wants(api.FormatOverlay)}
	if sink.Picture || q.Wants(api.FormatProbability) {
		sink.Weight = encodeWeight
	}
	resp, err := p.inner.Run(ctx, &sink)
	if err != nil {
		return nil, refersam.Rename(err, q.Name)
	}
	s.Meter.CountPicture(p.who.Account, resp)
	a := NewAnswer(p.who.RequestID, resp, encoder.masks)
	if q.Quality {
		for i := range resp.Results {
			a.Results[i].Quality = &api.AnswerQuality{Components: resp.Results[i].Components, Stability: resp.Results[i].Stability}
		}
	}
	a.Timings = newTimings(read, p.fetched, read+time.Since(p.begun), resp.Timings)
	return &Answered{resp, a, encoder.masks, q.Overlay}, nil
}

func newTimings(read, fetch, total time.Duration, t refersam.Timings) *api.AnswerTimings {
	return &api.AnswerTimings{
		Read: api.Milliseconds(read), Fetch: api.Milliseconds(fetch), Decode: api.Milliseconds(t.Decode), Model: api.Milliseconds(t.Model),
		Mask: api.Milliseconds(t.Mask), Total: api.Milliseconds(total),
	}
}
