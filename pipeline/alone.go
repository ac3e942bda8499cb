package pipeline

import (
	"log/slog"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/triton"
)

// Alone schedules rows of one ensemble as a Segmenter does, with nothing before
// and after: for measuring the model.
type Alone struct {
	*Scheduler
	contract *triton.Contract
	queue    string
	served   served
}

// NewAlone makes an Alone. The caller must close it. Rows can be sent as soon
// as WaitUsable returns.
func NewAlone(cfg schedule.Config, c *triton.Contract, replicas []Replica, log *slog.Logger) (*Alone, error) {
	scheduler, err := schedule.New[Task, refersam.Logits](cfg, func(t Task) { t.row.Pixels.Release() }, log)
	if err != nil {
		return nil, err
	}
	a := &Alone{Scheduler: scheduler, contract: c}
	a.queue = a.served.name(c)
	a.served.set(map[string]*triton.Contract{a.queue: c})
	scheduler.SetModels(map[string]int{a.queue: c.MaxBatch})
	scheduler.SetReplicas(a.served.scheduled(replicas))
	return a, nil
}

// Send schedules a row by itself, and lets go of its pixels once when nothing
// reads them any more. job names its class, key and deadline. done is called
// once unless Send fails, which lets go of the pixels too.
func (a *Alone) Send(job schedule.Job, row triton.Row, done func(refersam.Logits, error)) error {
	job.Model, job.MaxBatch, job.Rows, job.Bytes = a.queue, a.contract.MaxBatch, 1, int64(len(row.Pixels.Bytes()))
	ticket, err := a.Admit(job)
	if err != nil {
		row.Pixels.Release()
		return err
	}
	ticket.Send([]Task{{a.contract, row}}, func(_ int, l refersam.Logits, err error) { done(l, err) })
	return nil
}
