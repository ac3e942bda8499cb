package triton

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/refersam/refersam"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Fault is how a replica failed.
type Fault string

const (
	// Unreachable replicas are away, stopping, or the connection broke.
	Unreachable Fault = "unreachable"
	// NotReady ones run but have not loaded the model.
	NotReady Fault = "not ready"
	// Replaced ones have loaded another model under the name that was asked for,
	// or are loading it.
	Replaced Fault = "replaced"
	// Failed ones answered with an error.
	Failed Fault = "failed"
	// BadAnswer is for an answer that breaks the contract: other tensors, types
	// or shapes, more bytes, or logits that are not finite numbers.
	BadAnswer Fault = "bad answer"
)

// ReplicaError says that a replica is at fault, not the caller and not time.
// The same call may be sent to another replica. Unreachable wraps a
// *refersam.Error of CodeUnavailable, NotReady and Replaced one of CodeNotReady.
type ReplicaError struct {
	Replica string // its name
	Model   string // may be empty
	Fault   Fault
	Err     error
}

func (e *ReplicaError) Error() string {
	if e.Model == "" {
		return fmt.Sprintf("triton server %s: %v", e.Replica, e.Err)
	}
	return fmt.Sprintf("triton server %s, model %s: %v", e.Replica, e.Model, e.Err)
}

func (e *ReplicaError) Unwrap() error { return e.Err }

const (
	messageUnavailable = "The model server cannot be reached. Try again later."
	messageNotReady    = "The model is not loaded yet. Try again later."
	messageReplaced    = "The model is being replaced by another one. Try again later."
	messageDeadline    = "The model server did not answer in time."
)

// fault makes the error of a replica that is at fault.
func (r *Replica) fault(fault Fault, model string, cause error) error {
	switch fault {
	case Unreachable:
		cause = &refersam.Error{Code: refersam.CodeUnavailable, Message: messageUnavailable, Err: cause}
	case Replaced:
		cause = &refersam.Error{Code: refersam.CodeNotReady, Message: messageReplaced, Err: cause}
	case NotReady:
		cause = &refersam.Error{Code: refersam.CodeNotReady, Message: messageNotReady, Err: cause}
	}
	return &ReplicaError{Replica: r.name, Model: model, Fault: fault, Err: cause}
}

// failure turns the error of a call to r into one that Infer documents.
func (r *Replica) failure(ctx context.Context, model, doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	code := status.Code(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("triton server %s: %w: %w", r.name, context.Canceled, err)
	case ctx.Err() != nil, code == codes.DeadlineExceeded && aboutToEnd(ctx):
		return &refersam.Error{
			Code: refersam.CodeDeadlineExceeded, Message: messageDeadline,
			Err: fmt.Errorf("triton server %s: %w: %w", r.name, context.DeadlineExceeded, err),
		}
	}
	switch code {
	case codes.Unavailable, codes.Canceled: // Canceled: the connection was closed on our side
		return r.fault(Unreachable, model, err)
	case codes.NotFound:
		return r.fault(NotReady, model, err)
	case codes.ResourceExhausted: // gRPC's word for a message that is too large
		return r.fault(BadAnswer, model, err)
	default:
		return r.fault(Failed, model, err)
	}
}

// TimerSkew is more than two timers for one moment ever differ by.
const TimerSkew = time.Second

// aboutToEnd reports whether the deadline of ctx has come by the server's
// clock, which may be ahead of ours.
func aboutToEnd(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < TimerSkew
}

// inferFailure is failure for an inference. Triton says Unavailable both when a
// model is loading and when the server itself stops, so inferFailure asks which of
// the two it is. A request that Triton refuses may fit another model, which was
// loaded since c was read.
func (r *Replica) inferFailure(ctx context.Context, conn *connection, c *Contract, err error) error {
	failure := r.failure(ctx, c.Model, "inference", err)
	if ctx.Err() != nil {
		return failure
	}
	switch status.Code(err) {
	case codes.Unavailable:
		answer, readyErr := r.stub().ModelReady(ctx, &pb.ModelReadyRequest{Name: c.Model, Version: c.Version})
		if readyErr == nil && !answer.GetReady() {
			return r.fault(NotReady, c.Model, err)
		}
	case codes.InvalidArgument:
		seen, lookErr := r.look(ctx, conn, c, time.Now())
		if lookErr == nil && seen.contract != *c {
			return r.fault(Replaced, c.Model, fmt.Errorf("%w: %w", differs(c, &seen.contract), err))
		}
	}
	return failure
}
