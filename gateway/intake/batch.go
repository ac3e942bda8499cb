package intake

import (
	"io"
	"strconv"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// Batch is a request for the masks of several pictures.
type Batch struct {
	Variant  string
	Deadline time.Duration
	Webhook  string
	Items    []BatchItem
}

// BatchItem is one picture of a batch: a request, or the faults of the item.
type BatchItem struct {
	ID      string
	Request *Request
	Err     error
}

// ParseBatch reads a batch. Faults of a single item are stored in the item; any
// other fault is the error.
func ParseBatch(r io.Reader, maxImage int64) (*Batch, error) {
	var b api.BatchRequest
	if err := ReadJSON(r, &b); err != nil {
		return nil, ReadError(err)
	}
	var wrong refersam.Faults
	common, err := parseCommon(&b.Common)
	wrong.Add(err)
	wrong.Add(checkOutput(&b.Output, func(member string) string { return "/output/" + member }))
	if len(b.Items) == 0 {
		wrong.Add(refersam.Invalidf("/items", "There must be at least one item."))
	}
	batch := &Batch{Variant: common.Variant, Deadline: common.Deadline, Webhook: common.Webhook, Items: make([]BatchItem, len(b.Items))}
	for i := range b.Items {
		from, to := &b.Items[i], &batch.Items[i]
		out := inherit(from.Output, &b.Output)
		wrong.Add(CheckID("/items/"+strconv.Itoa(i)+"/id", from.ID)) // an answer would have to repeat the id
		to.ID = from.ID
		to.Request, to.Err = newRequest("/items/"+strconv.Itoa(i), common, from.Image, from.Prompts, &out, maxImage)
	}
	return batch, wrong.Err()
}

// Work returns the items as work of a job, or the faults of any item.
func (b *Batch) Work() ([]answer.Item, error) {
	var wrong refersam.Faults
	items := make([]answer.Item, len(b.Items))
	for i := range b.Items {
		item := &b.Items[i]
		if item.Err != nil {
			wrong.Add(item.Err)
			continue
		}
		items[i] = answer.Item{ID: item.ID, Question: item.Request.Question(), Deadline: item.Request.Deadline}
	}
	return items, wrong.Err()
}

// ByReference reports whether no item contains its picture's bytes.
func (b *Batch) ByReference() bool {
	for i := range b.Items {
		if req := b.Items[i].Request; req != nil && req.Source.Data != nil {
			return false
		}
	}
	return true
}
