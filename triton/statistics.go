package triton

import (
	"context"
	"fmt"
	"time"

	pb "github.com/refersam/refersam/triton/inferencepb"
)

// Statistics is what one server has done for an ensemble since it loaded it.
type Statistics struct {
	// Ensemble counts whole requests. Triton keeps no queue for an ensemble.
	Ensemble ModelStatistics
	// Steps has the ensemble's steps, in the contract's order. A model that is
	// a step of two ensembles counts for both.
	Steps []ModelStatistics
}

// ModelStatistics is what one model has done. A request is what a client, or
// an ensemble for a step, has sent, and has one or more rows; an execution is
// a batch that Triton has made of one or more requests.
type ModelStatistics struct {
	Model string
	// Rows / Executions is the mean batch.
	Rows, Executions uint64
	// Succeeded and Failed are requests and their whole time. A cancelled
	// request is a failed one. Tritonserver 24.10 counts a failure of an
	// ensemble twice.
	Succeeded, Failed Durations
	// Queue is how long requests waited for an instance. Input, Compute and Output
	// are how long the requests' batches took.
	Queue, Input, Compute, Output Durations
}

// Durations is a number of durations and their sum.
type Durations struct {
	Count uint64
	Total time.Duration
}

// Mean is 0 when there is nothing to take it of.
func (d Durations) Mean() time.Duration {
	if d.Count == 0 {
		return 0
	}
	return d.Total / time.Duration(d.Count)
}

// Since returns what has been done after earlier. A server that was restarted,
// or has loaded a model anew, counts from 0 again: then that is what s holds.
func (s Statistics) Since(earlier Statistics) Statistics {
	difference := Statistics{Ensemble: s.Ensemble.since(earlier.Ensemble)}
	for i, step := range s.Steps {
		if i < len(earlier.Steps) {
			step = step.since(earlier.Steps[i])
		}
		difference.Steps = append(difference.Steps, step)
	}
	return difference
}

func (m ModelStatistics) since(earlier ModelStatistics) ModelStatistics {
	if m.Model != earlier.Model || !m.follows(earlier) {
		return m
	}
	m.Rows -= earlier.Rows
	m.Executions -= earlier.Executions
	for i, d := range m.durations() {
		before := earlier.durations()[i]
		d.Count -= before.Count
		d.Total -= before.Total
	}
	return m
}

// follows reports whether nothing in m is less than it was earlier.
func (m *ModelStatistics) follows(earlier ModelStatistics) bool {
	if m.Rows < earlier.Rows || m.Executions < earlier.Executions {
		return false
	}
	for i, d := range m.durations() {
		if before := earlier.durations()[i]; d.Count < before.Count || d.Total < before.Total {
			return false
		}
	}
	return true
}

func (m *ModelStatistics) durations() [6]*Durations {
	return [...]*Durations{&m.Succeeded, &m.Failed, &m.Queue, &m.Input, &m.Compute, &m.Output}
}

// Statistics reads the counters of an ensemble from r. It returns the same
// errors as Infer.
func (r *Replica) Statistics(ctx context.Context, c *Contract) (Statistics, error) {
	response, err := r.stub().ModelStatistics(ctx, &pb.ModelStatisticsRequest{})
	if err != nil {
		return Statistics{}, r.failure(ctx, c.Model, "reading the statistics", err)
	}
	models := make(map[string]*ModelStatistics)
	for _, m := range response.GetModelStats() {
		sum, ok := models[m.GetName()]
		if !ok {
			sum = &ModelStatistics{Model: m.GetName()}
			models[m.GetName()] = sum
		}
		sum.add(m)
	}
	var s Statistics
	for _, name := range append([]string{c.Model}, c.StepNames()...) {
		m, ok := models[name]
		if !ok {
			return Statistics{}, r.fault(NotReady, c.Model, fmt.Errorf("it has no statistics of %s", name))
		}
		s.Steps = append(s.Steps, *m)
	}
	s.Ensemble, s.Steps = s.Steps[0], s.Steps[1:]
	return s, nil
}

// add adds one version of the model to m.
func (m *ModelStatistics) add(version *pb.ModelStatistics) {
	m.Rows += version.GetInferenceCount()
	m.Executions += version.GetExecutionCount()
	stats := version.GetInferenceStats()
	parts := []*pb.StatisticDuration{
		stats.GetSuccess(), stats.GetFail(), stats.GetQueue(),
		stats.GetComputeInput(), stats.GetComputeInfer(), stats.GetComputeOutput(),
	}
	for i, d := range m.durations() {
		d.Count += parts[i].GetCount()
		d.Total += time.Duration(parts[i].GetNs())
	}
}
