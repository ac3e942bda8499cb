package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/triton"
)

// Replica is one model server; *triton.Replica is one. Its methods are safe for
// concurrent use and return soon after their context has ended; see
// triton.Replica for their errors.
type Replica interface {
	Name() string
	// Infer runs at most c.MaxBatch rows and returns one Logits per row, in order.
	// It does not change the rows.
	Infer(ctx context.Context, c *triton.Contract, rows []triton.Row) ([]refersam.Logits, error)
	// Probe does one real inference.
	Probe(ctx context.Context, c *triton.Contract) error
	// Statistics returns the server's counters of an ensemble.
	Statistics(ctx context.Context, c *triton.Contract) (triton.Statistics, error)
}

// Task is a row to be scheduled.
type Task struct {
	contract *triton.Contract
	row      triton.Row
}

// Scheduler decides when and where tasks run.
type Scheduler = schedule.Scheduler[Task, refersam.Logits]

// served are the ensembles that replicas run, by the name of their queue.
type served struct {
	mu        sync.Mutex
	contracts map[string]*triton.Contract
	names     map[triton.Contract]string
}

// name returns the name of a contract's queue. Rows of one queue may share a
// batch or an answer, because the same model reads and answers them in the same
// way. Two contracts never have the same name.
func (s *served) name(c *triton.Contract) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.names[*c]; ok {
		return name
	}
	if s.names == nil {
		s.names = make(map[triton.Contract]string)
	}
	name := fmt.Sprintf("%s:%s@%.8s", c.Model, c.Version, c.Checkpoint)
	same := 1
	for other := range s.names {
		if name == fmt.Sprintf("%s:%s@%.8s", other.Model, other.Version, other.Checkpoint) {
			same++
		}
	}
	if same > 1 { // they differ in something else, as the threshold
		name = fmt.Sprintf("%s/%d", name, same)
	}
	s.names[*c] = name
	return name
}

func (s *served) set(contracts map[string]*triton.Contract) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contracts = contracts
}

func (s *served) get(queue string) (*triton.Contract, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.contracts[queue]; c != nil {
		return c, nil
	}
	return nil, refersam.Errorf(refersam.CodeNotReady, "The model %s is no longer served.", queue)
}

// scheduled are replicas as the scheduler needs them.
func (s *served) scheduled(replicas []Replica) []schedule.Replica[Task, refersam.Logits] {
	set := make([]schedule.Replica[Task, refersam.Logits], len(replicas))
	for i, r := range replicas {
		set[i] = scheduled{r, s}
	}
	return set
}

// scheduled is a Replica as the scheduler needs it.
type scheduled struct {
	Replica
	served *served
}

var _ schedule.Replica[Task, refersam.Logits] = scheduled{}

// Run implements schedule.Replica.
func (r scheduled) Run(ctx context.Context, _ string, tasks []Task) ([]refersam.Logits, error) {
	rows := make([]triton.Row, len(tasks))
	for i, t := range tasks {
		rows[i] = t.row
	}
	return r.Infer(ctx, tasks[0].contract, rows)
}

// Warm implements schedule.Replica.
func (r scheduled) Warm(ctx context.Context, queue string, n int) error {
	c, err := r.served.get(queue)
	if err != nil {
		return err
	}
	if n == 1 {
		return r.Probe(ctx, c)
	}
	_, err = r.Infer(ctx, c, triton.BlankRows(c, n))
	return err
}

// Load implements schedule.Replica.
func (r scheduled) Load(ctx context.Context, queue string) (schedule.Load, error) {
	c, err := r.served.get(queue)
	if err != nil {
		return schedule.Load{}, err
	}
	stats, err := r.Statistics(ctx, c)
	if err != nil {
		return schedule.Load{}, err
	}
	load := schedule.Load{Batches: stats.Ensemble.Succeeded.Count}
	for _, step := range stats.Steps {
		load.Waited += step.Queue.Total
	}
	return load, nil
}

// SetReplicas says which model servers there are. One is used once it has
// passed a probe.
func (s *Segmenter) SetReplicas(replicas []Replica) {
	s.scheduler.SetReplicas(s.served.scheduled(replicas))
}

// Scheduler returns what schedules the work of s, to be looked at and tuned.
func (s *Segmenter) Scheduler() *Scheduler { return s.scheduler }
