package experiment

import (
	"context"
	"errors"
	"fmt"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/triton"
)

// Config says which variant answers whom.
type Config struct {
	// Split shares units out among variants by weight, as in
	// "bert:90,clip:10". Default: empty, an equal share for every variant that
	// is loaded.
	Split string `env:"REFERSAM_SPLIT"`
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	_, err := c.split()
	return err
}

// split returns the configured Split, or the zero Split if there is none.
func (c *Config) split() (Split, error) {
	if c.Split == "" {
		return Split{}, nil
	}
	split, err := ParseSplit(c.Split)
	if err != nil {
		return Split{}, fmt.Errorf("REFERSAM_SPLIT is %q, allowed: variants with weights, as bert:90,clip:10: %w", c.Split, err)
	}
	return split, nil
}

// Require makes a pipeline report variants of the split that no model server has
// loaded. c must be valid.
func (c *Config) Require(p *pipeline.Config) {
	if split, err := c.split(); err == nil && c.Split != "" {
		p.Required, p.RequiredBy = split.Variants(), fmt.Sprintf("REFERSAM_SPLIT %q", c.Split)
	}
}

// Inner answers requests that name their variant; *pipeline.Segmenter is one. All
// of it is safe for concurrent use.
type Inner interface {
	Prepare(req *refersam.Request, options pipeline.Options) (*pipeline.Prepared, error)
	// CheckVariant returns why a variant cannot be used now, or nil.
	CheckVariant(name string) error
	// Loaded returns the names of the variants that are loaded, in order.
	Loaded() []string
	// Ready returns nil when requests can be answered, else a *refersam.Error.
	Ready() error
	// Variants describes the variants that can be used, by name.
	Variants() []triton.Contract
	// Unusable describes the variants that should be there and cannot be used, by
	// name.
	Unusable() []pipeline.Unusable
	Limits() pipeline.Limits
}

// Segmenter is a refersam.Segmenter around an Inner: it draws the variant of each
// request, and reports each answer as an Exposure. It is the only place that
// chooses a variant.
type Segmenter struct {
	inner   Inner
	split   Split // the zero Split: equal shares
	exposed func(Exposure)
}

var _ refersam.Segmenter = (*Segmenter)(nil)

// New makes a Segmenter. exposed is called with each answer, by the goroutine that
// made it. cfg must be valid.
func New(cfg Config, inner Inner, exposed func(Exposure)) (*Segmenter, error) {
	split, err := cfg.split()
	if err != nil {
		return nil, err
	}
	return &Segmenter{inner, split, exposed}, nil
}

// Assignment is the variant that answers a request.
type Assignment struct {
	Variant string
	// Forced reports that the client named the variant. Otherwise it was drawn.
	Forced bool
}

// Exposure is one answer. Only an answer with a drawn variant counts in an
// experiment, and of its results only those with the origin refersam.OriginModel,
// because the others were made for another request.
type Exposure struct {
	Assignment
	// Request is the request as it was answered: it names the variant also if the
	// variant was drawn. Its Unit is the unit that it was drawn for unless Forced.
	Request  *refersam.Request
	Response *refersam.Response
}

// Assign returns the variant that a client has named, or else the variant of its
// unit. A unit has no variant as long as nothing is loaded and nothing configured;
// then Variant is empty, and Run returns why it cannot answer.
func (s *Segmenter) Assign(named, unit string) Assignment {
	if named != "" {
		return Assignment{named, true}
	}
	return Assignment{s.shares().Assign(unit), false}
}

// shares is the split that is in force.
func (s *Segmenter) shares() Split {
	if len(s.split.arms) > 0 {
		return s.split
	}
	equal := make(map[string]int)
	for _, name := range s.inner.Loaded() {
		equal[name] = 1
	}
	split, _ := NewSplit(equal) // without variants it is the zero Split
	return split
}

// Prepared is a request that can be answered by its variant.
type Prepared struct {
	*pipeline.Prepared
	assignment Assignment
	request    *refersam.Request
	exposed    func(Exposure)
}

// Prepare checks a request, see pipeline.Segmenter.Prepare. The variant of the
// request is a's.
func (s *Segmenter) Prepare(req *refersam.Request, a Assignment, options pipeline.Options) (*Prepared, error) {
	assigned := *req
	assigned.Variant = a.Variant
	p, err := s.inner.Prepare(&assigned, options)
	if err != nil {
		return nil, err
	}
	return &Prepared{p, a, &assigned, s.exposed}, nil
}

// CheckVariant returns why the variant of an assignment cannot be used now, or nil.
func (s *Segmenter) CheckVariant(a Assignment) error {
	return explain(a, s.inner.CheckVariant(a.Variant))
}

// explain adds to the error of a broken variant how a client that was given the
// variant gets an answer. Another variant never answers instead: what a client has
// named is its choice, and a unit that was given another variant for a while would
// spoil the experiment.
func explain(a Assignment, err error) error {
	var e *refersam.Error
	if a.Forced || !errors.Is(err, pipeline.ErrBroken) || !errors.As(err, &e) {
		return err
	}
	explained := *e
	explained.Message += " The split gives it to this client; name another variant to get an answer."
	return &explained
}

// Run answers the request, see pipeline.Prepared.Run, and reports the exposure.
func (p *Prepared) Run(ctx context.Context, sink *pipeline.Sink) (*refersam.Response, error) {
	resp, err := p.Prepared.Run(ctx, sink)
	if err != nil {
		return nil, explain(p.assignment, err)
	}
	p.exposed(Exposure{p.assignment, p.request, resp})
	return resp, nil
}

// Segment implements refersam.Segmenter.
func (s *Segmenter) Segment(ctx context.Context, req *refersam.Request) (*refersam.Response, error) {
	p, err := s.Prepare(req, s.Assign(req.Variant, req.Unit), pipeline.Options{})
	if err != nil {
		return nil, err
	}
	return p.Run(ctx, nil)
}

// Variant describes a variant that can be used.
type Variant struct {
	triton.Contract
	// Share is the part of the units that gets this variant, in [0, 1].
	Share float64
}

// Unusable describes a variant that should be there and cannot be used.
type Unusable struct {
	pipeline.Unusable
	// Share is the part of the units that gets this variant, and no answer.
	Share float64
}

// Variants describes the variants that can be used, by name.
func (s *Segmenter) Variants() []Variant {
	split := s.shares()
	var all []Variant
	for _, c := range s.inner.Variants() {
		all = append(all, Variant{c, split.Share(c.Variant)})
	}
	return all
}

// Unusable describes the variants that should be there and cannot be used, by
// name.
func (s *Segmenter) Unusable() []Unusable {
	split := s.shares()
	var all []Unusable
	for _, u := range s.inner.Unusable() {
		all = append(all, Unusable{u, split.Share(u.Variant)})
	}
	return all
}

// Ready returns nil when requests can be answered, else a *refersam.Error.
func (s *Segmenter) Ready() error { return s.inner.Ready() }

// Limits are the limits of Segment.
func (s *Segmenter) Limits() pipeline.Limits { return s.inner.Limits() }
