package triton

import (
	"context"
	"sync/atomic"

	"github.com/refersam/refersam"
)

// maxAttempts is how many servers one call may try. Inference changes nothing,
// so a call may be repeated elsewhere when a server is away; two and not all,
// so that a request that brings servers down cannot take every one with it.
const maxAttempts = 2

// Client runs the ensembles of a fleet whose servers take turns. It is what
// stands in the place of a scheduler until there is one.
//
// Errors that may pass are a *refersam.Error: CodeUnavailable when no server
// could be reached or the connection broke, CodeNotReady when the model is not
// loaded, CodeDeadlineExceeded when the context's deadline came first.
type Client struct {
	*Fleet
	next atomic.Uint32
}

// NewClient makes a Client of a fleet, which it does not close.
func NewClient(fleet *Fleet) *Client { return &Client{Fleet: fleet} }

// Infer runs rows on one server, or on a second one when that cannot be
// reached or has not loaded the model; see Replica.Infer.
func (c *Client) Infer(ctx context.Context, contract *Contract, rows []Row) ([]refersam.Logits, error) {
	err := noReplica()
	for _, r := range c.candidates() {
		var logits []refersam.Logits
		if logits, err = r.Infer(ctx, contract, rows); err == nil {
			return logits, nil
		}
		if code := refersam.ErrorCode(err); code != refersam.CodeUnavailable && code != refersam.CodeNotReady {
			return nil, err
		}
	}
	return nil, err
}

// candidates returns the servers to try for one call, best first: in turn, but
// those whose connection is failing after all others.
func (c *Client) candidates() []*Replica {
	replicas := c.Replicas()
	first := int(c.next.Add(1))
	ordered := make([]*Replica, 0, len(replicas))
	var failing []*Replica
	for i := range replicas {
		r := replicas[(first+i)%len(replicas)]
		if r.failing() {
			failing = append(failing, r)
		} else {
			ordered = append(ordered, r)
		}
	}
	ordered = append(ordered, failing...)
	return ordered[:min(len(ordered), maxAttempts)]
}
