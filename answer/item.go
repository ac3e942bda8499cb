package answer

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"go.opentelemetry.io/otel/attribute"
)

// storedQuestion is a question, without its picture, as the database stores it for
// a job. Later versions must be able to read it, as long as jobs are stored.
type storedQuestion struct {
	Prompts []storedPrompt
	Output  storedOutput
	// Variant is the variant that the client has named, or that was drawn when the
	// job was accepted if Drawn. It is empty if no variant was known then.
	Variant  string
	Drawn    bool
	Priority refersam.Priority
	Naming   Naming
	// Field is the client's name for the picture. URL is the address to fetch it
	// from, or "" if the picture is stored.
	Field, URL string
	// Form is the media type of the answer.
	Form         string
	Sharer, Unit string
	// Trace is the traceparent of the request for the job, or "".
	Trace string `json:",omitempty"`
}

type storedOutput struct {
	Size    refersam.Size `json:"size"`
	Overlay string        `json:"overlay"`
	Quality bool          `json:"quality"`
}

type storedPrompt struct {
	Phrase    refersam.Phrase
	Formats   []string
	Chosen    bool
	Tolerance float64
}

// Item is one question of a job.
type Item struct {
	// ID is the client's name for the item.
	ID       string
	Question *Question
	// Deadline is how long the client waits; 0 leaves it to the service.
	Deadline time.Duration
}

// Submission returns the work of a job's items. Their answers will have the media
// type form. Questions that cannot succeed are refused. Pictures that were sent
// with the request are stored; drop deletes them again, for a job that is not
// accepted.
func (s *Service) Submission(ctx context.Context, who Caller, form string, begun time.Time, items []Item) (works []jobs.Work, drop func(), err error) {
	works = make([]jobs.Work, len(items))
	for i := range items {
		if works[i], err = s.work(ctx, who, form, begun, &items[i]); err != nil {
			return nil, nil, err
		}
	}
	var kept []string
	drop = func() { s.Images.DropObjects(ctx, kept) }
	for i := range items {
		if items[i].Question.Source.Data == nil {
			continue
		}
		name, err := s.Images.PutObject(ctx, who.Account, items[i].Question.Source.Data)
		if err != nil {
			drop()
			return nil, nil, err
		}
		works[i].Picture = name
		kept = append(kept, name)
	}
	return works, drop, nil
}

// work returns the work of an item, without a picture that is not stored yet.
func (s *Service) work(ctx context.Context, who Caller, form string, begun time.Time, item *Item) (jobs.Work, error) {
	q := item.Question
	assignment := s.Segmenter.Assign(q.Variant, who.Unit)
	prepared, err := s.Segmenter.Prepare(q.request(who, q.Source.Data), assignment, pipeline.Options{})
	if err != nil {
		return jobs.Work{}, refersam.Rename(err, q.Name)
	}
	stored := storedQuestion{
		Output:  storedOutput{q.Size, q.Overlay, q.Quality},
		Variant: assignment.Variant, Drawn: !assignment.Forced && assignment.Variant != "", Priority: q.Priority, Naming: q.Naming,
		Field: q.Source.Field, URL: q.Source.URL, Form: form,
		Sharer: who.FairnessKey, Unit: who.Unit, Trace: traceparent(ctx),
	}
	if stored.Priority == "" {
		stored.Priority = refersam.PriorityBatch
	}
	for _, p := range q.Prompts {
		stored.Prompts = append(stored.Prompts, storedPrompt{p.Phrase, p.Formats, p.Chosen, p.Tolerance})
	}
	w := jobs.Work{
		APIKey: who.Account, ID: item.ID, Deadline: begun.Add(s.cfg.JobPatience), Urgent: stored.Priority == refersam.PriorityInteractive,
	}
	if item.Deadline > 0 {
		w.Deadline = begun.Add(item.Deadline)
	}
	if w.Request, err = json.Marshal(stored); err != nil {
		return w, err
	}
	switch {
	case q.Source.ID != "":
		image, err := s.Images.Find(ctx, who.Account, q.Source.ID)
		if err != nil {
			return w, refersam.Rename(inImage(err), q.Name)
		}
		if err := prepared.CheckSize(image.Width, image.Height); err != nil {
			return w, refersam.Rename(err, q.Name)
		}
		w.Picture, w.Bytes = image.Blob, image.Bytes
	case q.Source.URL != "":
		if err := s.checkURL(&q.Source); err != nil {
			return w, refersam.Rename(err, q.Name)
		}
	default:
		if _, err := prepared.Header(); err != nil {
			return w, refersam.Rename(err, q.Name)
		}
		w.Bytes = int64(len(q.Source.Data))
	}
	return w, nil
}

// Work answers an item of a job and stores the answer. It is a jobs.Worker.
func (s *Service) Work(ctx context.Context, w *jobs.Work) (_ jobs.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	var stored storedQuestion
	if err := json.Unmarshal(w.Request, &stored); err != nil {
		return jobs.Result{}, fmt.Errorf("read the question of an item: %w", err)
	}
	ctx, span := s.beginItem(ctx, w.RequestID, stored.Trace)
	defer func() { endSpan(span, err) }()
	who := Caller{RequestID: w.RequestID, Account: w.APIKey, FairnessKey: stored.Sharer, Unit: stored.Unit}
	lease := s.Lease(stored.Sharer)
	defer lease.Close()
	prepared, err := s.Prepare(ctx, who, stored.question(w), lease)
	if err != nil {
		return jobs.Result{}, err
	}
	budget := s.Budget()
	defer budget.Release()
	answered, err := prepared.Answer(ctx, budget, 0)
	if err != nil {
		return jobs.Result{}, err
	}
	span.SetAttributes(attribute.String("refersam.variant", answered.Response.Variant))
	rendered, err := answered.Render(stored.Form)
	if err != nil {
		return jobs.Result{}, err
	}
	var body bytes.Buffer
	if err := rendered.Body(&body); err != nil {
		return jobs.Result{}, err
	}
	values := make(map[string][]string, len(rendered.Header)) // as earlier versions stored it
	for name, value := range rendered.Header {
		values[name] = []string{value}
	}
	header, err := json.Marshal(values)
	if err != nil {
		return jobs.Result{}, err
	}
	blob, err := s.Images.PutObject(ctx, w.APIKey, body.Bytes())
	return jobs.Result{Blob: blob, Header: header}, err
}

func (q *storedQuestion) question(w *jobs.Work) *Question {
	question := &Question{
		Source:  Source{Field: q.Field, URL: q.URL, Object: w.Picture, Bytes: w.Bytes},
		Variant: q.Variant, Drawn: q.Drawn, Size: q.Output.Size, Overlay: q.Output.Overlay, Quality: q.Output.Quality,
		Priority: q.Priority, Naming: q.Naming,
	}
	for _, p := range q.Prompts {
		question.Prompts = append(question.Prompts, Prompt{p.Phrase, p.Formats, p.Chosen, p.Tolerance})
	}
	return question
}
