package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	scheduler = schedule.Scheduler[int, int]
	ticket    = schedule.Ticket[int, int]
)

const (
	model    = "refersam_test:1"
	maxBatch = 8
)

// machine is a Replica in synthetic time: a pipeline with a slowest stage that
// takes spaced. It answers each row with its negative.
type machine struct {
	name                         string
	fixed, perRow                time.Duration // alone
	spacedFixed, spacedPerRow    time.Duration
	mu                           sync.Mutex
	last                         time.Time // when the last batch is done
	inFlight, mostInFlight, runs int
	order                        []int // rows in the order of their arrival
	sizes                        []int
	fail                         func() error     // nil: it works
	lost                         map[string]error // by model
	waited                       time.Duration
	jitter                       float64 // of the duration, exponential
	stretch                      float64 // all durations are that many times as long; 0: once
	blank                        []blank // every call of Warm
}

// blank is a call of Warm.
type blank struct {
	model string
	rows  int
	begun time.Time
}

// alone is how long n rows take on an idle machine without jitter.
func (m *machine) alone(n int) time.Duration { return m.fixed + time.Duration(n)*m.perRow }

func (m *machine) setStretch(stretch float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stretch = stretch
}

func newMachine(name string) *machine {
	return &machine{
		name:  name,
		fixed: 8 * time.Millisecond, perRow: 2 * time.Millisecond,
		spacedFixed: 4 * time.Millisecond, spacedPerRow: time.Millisecond,
	}
}

// capacity is how many rows a second the machine can do.
func (m *machine) capacity() float64 {
	return maxBatch / (m.spacedFixed + maxBatch*m.spacedPerRow).Seconds()
}

func (m *machine) Name() string { return m.name }

func (m *machine) Run(ctx context.Context, name string, rows []int) ([]int, error) {
	if name != model && name != model+"-other" {
		return nil, fmt.Errorf("model %s", name)
	}
	m.mu.Lock()
	m.order = append(m.order, rows...)
	m.sizes = append(m.sizes, len(rows))
	lost := m.lost[name]
	m.mu.Unlock()
	if lost != nil {
		return nil, lost
	}
	if err := m.work(ctx, len(rows)); err != nil {
		return nil, err
	}
	answers := make([]int, len(rows))
	for i, row := range rows {
		answers[i] = -row
	}
	return answers, nil
}

func (m *machine) work(ctx context.Context, n int) error {
	m.mu.Lock()
	if m.fail != nil {
		if err := m.fail(); err != nil {
			m.mu.Unlock()
			return err
		}
	}
	m.inFlight++
	m.runs++
	m.mostInFlight = max(m.mostInFlight, m.inFlight)
	stretched := 1 + m.jitter*rand.ExpFloat64()
	if m.stretch > 0 {
		stretched *= m.stretch
	}
	now, stretch := time.Now(), time.Duration(1000*stretched)
	done := now.Add((m.fixed + time.Duration(n)*m.perRow) * stretch / 1000)
	if behind := m.last.Add((m.spacedFixed + time.Duration(n)*m.spacedPerRow) * stretch / 1000); behind.After(done) {
		m.waited += behind.Sub(done)
		done = behind
	}
	m.last = done
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.inFlight--
		m.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(done.Sub(now)):
		return nil
	}
}

func (m *machine) Warm(ctx context.Context, name string, n int) error {
	m.mu.Lock()
	m.blank = append(m.blank, blank{name, n, time.Now()})
	lost := m.lost[name]
	m.mu.Unlock()
	if lost != nil {
		return lost
	}
	return m.work(ctx, n)
}

// setLost makes the machine fail at a model, until err is nil.
func (m *machine) setLost(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost == nil {
		m.lost = make(map[string]error)
	}
	m.lost[name] = err
}

func (m *machine) Load(context.Context, string) (schedule.Load, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return schedule.Load{Batches: uint64(m.runs), Waited: m.waited}, nil
}

func (m *machine) setFail(fail func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// start makes a Scheduler before machines, measured and ready.
func start(t interface{ Fatal(...any) }, cfg schedule.Config, machines ...*machine) *scheduler {
	return startReleasing(t, cfg, nil, machines...)
}

func startReleasing(t interface{ Fatal(...any) }, cfg schedule.Config, release func(int), machines ...*machine) *scheduler {
	s, err := schedule.New[int, int](cfg, release, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.SetModels(map[string]int{model: maxBatch})
	replicas := make([]schedule.Replica[int, int], len(machines))
	for i, m := range machines {
		replicas[i] = m
	}
	s.SetReplicas(replicas)
	if err := s.WaitUsable(context.Background()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for _, m := range machines {
		m.mu.Lock()
		m.mostInFlight, m.order, m.sizes = 0, nil, nil
		m.mu.Unlock()
	}
	return s
}

// answer is what became of a row.
type answer struct {
	row, value int
	err        error
	at         time.Time
}

// asked collects answers.
type asked struct {
	mu      sync.Mutex
	answers []answer
}

func (a *asked) take(rows []int) func(int, int, error) {
	return func(i, value int, err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.answers = append(a.answers, answer{rows[i], value, err, time.Now()})
	}
}

func job(rows int, within time.Duration) schedule.Job {
	return schedule.Job{Model: model, MaxBatch: maxBatch, Rows: rows, Deadline: time.Now().Add(within)}
}

// ask admits and sends rows.
func (a *asked) ask(t *testing.T, s *scheduler, j schedule.Job, rows ...int) *ticket {
	t.Helper()
	j.Rows = len(rows)
	ticket, err := s.Admit(j)
	if err != nil {
		t.Fatalf("rows %v: %v", rows, err)
	}
	ticket.Send(rows, a.take(rows))
	return ticket
}

func TestScheduler_answersEachRowOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		var got asked
		for i := range 50 {
			got.ask(t, s, job(1, 10*time.Second), 2*i+1, 2*i+2)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(got.answers) != 100 {
			t.Fatalf("%d answers, want 100", len(got.answers))
		}
		slices.SortFunc(got.answers, func(a, b answer) int { return a.row - b.row })
		for i, a := range got.answers {
			if a.row != i+1 || a.value != -a.row || a.err != nil {
				t.Errorf("row %d answered with %d, %v", a.row, a.value, a.err)
			}
		}
		if full := slices.Max(m.sizes); full != maxBatch || len(m.sizes) > 15 {
			t.Errorf("batches %v: want few of %d", m.sizes, maxBatch)
		}
	})
}

// hold sends something first, so that what follows waits and is ordered.
func hold(t *testing.T, s *scheduler, got *asked) {
	t.Helper()
	for range 2 {
		got.ask(t, s, job(8, time.Minute), make([]int, maxBatch)...)
	}
}

func oneByOne() schedule.Config {
	cfg := schedule.DefaultConfig()
	cfg.MaxRows, cfg.MaxWindow = 1, 1
	return cfg
}

func TestScheduler_ordersByClassThenDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, oneByOne(), m)
		defer s.Close()
		var got asked
		got.ask(t, s, job(1, time.Minute), 0)
		with := func(c schedule.Class, within time.Duration) schedule.Job {
			j := job(1, within)
			j.Class = c
			return j
		}
		got.ask(t, s, with(schedule.Shadow, 20*time.Second), 6)
		got.ask(t, s, with(schedule.Batch, 20*time.Second), 4)
		got.ask(t, s, with(schedule.Batch, 21*time.Second), 5)
		got.ask(t, s, with(schedule.Interactive, 32*time.Second), 2)
		got.ask(t, s, with(schedule.Interactive, 32*time.Second), 3)
		got.ask(t, s, with(schedule.Interactive, 31*time.Second), 1)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 4, 5, 6}; !slices.Equal(m.order, want) {
			t.Errorf("order %v, want %v", m.order, want)
		}
	})
}

// TestScheduler_sharesByWeight has two keys with work for all the time: at any
// moment the rows they were given, by weight, differ by at most one row of
// each (Goyal et al., theorem 1).
func TestScheduler_sharesByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		cfg := oneByOne()
		cfg.Admission = false
		s := start(t, cfg, m)
		defer s.Close()
		var got asked
		got.ask(t, s, job(1, time.Minute), 0)
		weights := map[int]float64{1: 1, 2: 3}
		for range 60 {
			for key, weight := range weights {
				j := job(1, 10*time.Minute)
				j.Key, j.Weight = fmt.Sprint(key), weight
				got.ask(t, s, j, key)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		served := make(map[int]float64)
		for _, row := range m.order[1:61] { // both still have rows
			served[row]++
			if lead := served[1]/weights[1] - served[2]/weights[2]; lead > 1+1.0/3 || lead < -1-1.0/3 {
				t.Fatalf("key 1 got %v rows, key 2 %v", served[1], served[2])
			}
		}
	})
}

// TestScheduler_admitsByShare keeps one key busy far beyond what can be done:
// another with little to ask is not refused for it.
func TestScheduler_admitsByShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		var got asked
		refused := 0
		for range 2000 {
			j := job(1, time.Second)
			j.Key = "greedy"
			if ticket, err := s.Admit(j); err != nil {
				refused++
			} else {
				ticket.Send([]int{1}, got.take([]int{1}))
			}
		}
		if refused == 0 {
			t.Fatal("the greedy key was never refused")
		}
		j := job(1, time.Second)
		j.Key = "modest"
		begin := time.Now()
		got.ask(t, s, j, 2)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, a := range got.answers {
			if a.row == 2 && (a.err != nil || a.at.Sub(begin) > 100*time.Millisecond) {
				t.Errorf("the modest key's row: %v after %v", a.err, a.at.Sub(begin))
			}
		}
	})
}

func TestScheduler_keepsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		cfg := schedule.DefaultConfig()
		cfg.MaxWindow = 4
		s := start(t, cfg, m)
		defer s.Close()
		stop := saturate(t, s, 256)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if m.mostInFlight > 4 || m.mostInFlight < 2 {
			t.Errorf("%d batches at once, want 2 to 4", m.mostInFlight)
		}
	})
}

// saturate keeps rows waiting until it is stopped.
func saturate(t *testing.T, s *scheduler, rows int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	for range rows {
		go func() {
			for ctx.Err() == nil {
				done := make(chan struct{})
				ticket, err := s.Admit(job(1, time.Minute))
				if err != nil {
					return
				}
				ticket.Send([]int{1}, func(int, int, error) { close(done) })
				<-done
			}
		}()
	}
	return cancel
}

// TestScheduler_findsWindow has a pipeline that needs three batches at once to
// be busy.
func TestScheduler_findsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		m.fixed = 30 * time.Millisecond // alone 46 ms, one every 12 ms
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		stop := saturate(t, s, 256)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		before := s.Snapshot().Replicas[0].Rows
		time.Sleep(time.Minute)
		synctest.Wait()
		rate := float64(s.Snapshot().Replicas[0].Rows-before) / 60
		window := s.Snapshot().Replicas[0].Window
		stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if rate < 0.97*m.capacity() || window > 7 {
			t.Errorf("%.0f rows/s of %.0f with a window of %d", rate, m.capacity(), window)
		}
	})
}

func TestScheduler_failsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMachine("a"), newMachine("b")
		s := start(t, schedule.DefaultConfig(), a, b)
		defer s.Close()
		a.setFail(func() error { return refersam.Errorf(refersam.CodeUnavailable, "gone") })
		var got asked
		for i := range 64 {
			got.ask(t, s, job(1, time.Second), i)
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for _, g := range got.answers {
			if g.err != nil || g.value != -g.row {
				t.Errorf("row %d: %d, %v", g.row, g.value, g.err)
			}
		}
		if usable := usable(s); !slices.Equal(usable, []string{"b"}) {
			t.Errorf("usable %v, want b", usable)
		}
		a.setFail(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if usable := usable(s); !slices.Equal(usable, []string{"a", "b"}) {
			t.Errorf("usable %v, want both", usable)
		}
	})
}

func usable(s *scheduler) []string {
	var names []string
	for _, r := range s.Snapshot().Replicas {
		if r.Usable {
			names = append(names, r.Name)
		}
	}
	return names
}

// TestScheduler_hangs has a replica that answers no more, without an error.
func TestScheduler_hangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMachine("a"), newMachine("b")
		s := start(t, schedule.DefaultConfig(), a, b)
		defer s.Close()
		a.mu.Lock()
		a.fixed = time.Hour
		a.mu.Unlock()
		var got asked
		for i := range 64 {
			got.ask(t, s, job(1, 2*time.Second), i)
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(got.answers) != 64 {
			t.Errorf("%d answers, want 64", len(got.answers))
		}
		for _, g := range got.answers {
			if g.err != nil {
				t.Errorf("row %d: %v", g.row, g.err)
			}
		}
	})
}

func TestScheduler_allDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		var got asked
		got.ask(t, s, job(1, time.Minute), 1)
		for i := range 40 {
			got.ask(t, s, job(1, time.Minute), i+2)
		}
		m.setFail(func() error { return refersam.Errorf(refersam.CodeUnavailable, "gone") })
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		failed := 0
		for _, g := range got.answers {
			if refersam.ErrorCode(g.err) == refersam.CodeUnavailable {
				failed++
			}
		}
		if len(got.answers) != 41 || failed == 0 {
			t.Errorf("%d answers, %d of them unavailable", len(got.answers), failed)
		}
		if _, err := s.Admit(job(1, time.Minute)); refersam.ErrorCode(err) != refersam.CodeUnavailable {
			t.Errorf("admitted without a replica: %v", err)
		}
		m.setFail(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		got.ask(t, s, job(1, time.Minute), 100)
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

// TestScheduler_breaker has a replica that answers with errors.
func TestScheduler_breaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMachine("a"), newMachine("b")
		s := start(t, schedule.DefaultConfig(), a, b)
		defer s.Close()
		a.setFail(func() error { return errors.New("NaN") })
		var got asked
		for i := range 200 {
			got.ask(t, s, job(1, time.Second), i)
			time.Sleep(5 * time.Millisecond)
			synctest.Wait()
		}
		for _, g := range got.answers {
			if g.err != nil {
				t.Errorf("row %d: %v", g.row, g.err)
			}
		}
		if usable := usable(s); !slices.Equal(usable, []string{"b"}) {
			t.Errorf("usable %v, want b", usable)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
	})
}

func TestScheduler_drop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		var got asked
		hold(t, s, &got)
		waiting := got.ask(t, s, job(1, time.Minute), 7, 8)
		waiting.Drop(0)
		waiting.Drop(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if slices.Contains(m.order, 7) || !slices.Contains(m.order, 8) {
			t.Errorf("rows %v were run, want 8 and not 7", m.order)
		}
		running := got.ask(t, s, job(1, time.Minute), 9)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		running.Close()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if m.inFlight != 0 {
			t.Error("a batch that nobody waits for goes on")
		}
		for _, g := range got.answers {
			if g.row == 7 || g.row == 9 {
				t.Errorf("row %d was dropped and answered", g.row)
			}
		}
		unsent, err := s.Admit(job(3, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		unsent.Close()
		if snap := s.Snapshot(); snap.Queues[0].Waiting != [3]int{} || snap.QueueBytes != 0 {
			t.Errorf("rows are left: %+v", snap)
		}
	})
}

func TestScheduler_hedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMachine("a"), newMachine("b")
		cfg := schedule.DefaultConfig()
		cfg.Hedge = true
		s := start(t, cfg, a, b)
		defer s.Close()
		a.mu.Lock()
		a.fixed = 300 * time.Millisecond
		a.mu.Unlock()
		var got asked
		for i := range 10 {
			got.ask(t, s, job(1, 10*time.Second), i)
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		if len(got.answers) != 10 || s.Snapshot().Hedged == 0 {
			t.Errorf("%d answers, %d hedges", len(got.answers), s.Snapshot().Hedged)
		}
	})
}

func TestScheduler_modes(t *testing.T) {
	for _, tc := range []struct {
		name     string
		settings func(*schedule.Settings)
		want     []int // batch sizes of 3 rows, one every millisecond
	}{
		{"adaptive", func(*schedule.Settings) {}, []int{1, 2}},
		{"off", func(s *schedule.Settings) { s.Mode = schedule.Off }, []int{1, 1, 1}},
		{"fixed", func(s *schedule.Settings) { s.Mode, s.MaxWait = schedule.Fixed, 20*time.Millisecond }, []int{3}},
		{"fixed and full", func(s *schedule.Settings) {
			s.Mode, s.MaxWait, s.MaxRows = schedule.Fixed, 20*time.Millisecond, 2
		}, []int{2, 1}},
		{"adaptive, bounded", func(s *schedule.Settings) { s.MaxWait = time.Microsecond }, []int{1, 1, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine("a")
				cfg := schedule.DefaultConfig()
				cfg.MaxWindow = 8
				s := start(t, cfg, m)
				defer s.Close()
				var got asked
				for range 10 { // the start is slow
					got.ask(t, s, job(1, time.Second), 0)
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				m.sizes = nil
				settings := s.Settings()
				tc.settings(&settings)
				if err := s.Update(settings); err != nil {
					t.Fatal(err)
				}
				for i := range 3 {
					got.ask(t, s, job(1, time.Second), i)
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if !slices.Equal(m.sizes, tc.want) {
					t.Errorf("batches %v, want %v", m.sizes, tc.want)
				}
			})
		})
	}
}

// TestScheduler_servesModelsOneByOne has a replica that loses one of two models:
// it goes on with the other, and rows of the lost one go to another replica, or
// fail at once if there is none.
func TestScheduler_servesModelsOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other := newMachine("one"), newMachine("other")
		s := start(t, schedule.DefaultConfig(), one, other)
		defer s.Close()
		second := model + "-other"
		s.SetModels(map[string]int{model: maxBatch, second: maxBatch})
		if err := s.WaitUsable(t.Context(), model, second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		lost := &refersam.Error{Code: refersam.CodeNotReady, Message: "it has another checkpoint"}
		send := func(name string) error {
			tk, err := s.Admit(schedule.Job{Model: name, MaxBatch: maxBatch, Rows: 1, Deadline: time.Now().Add(time.Second)})
			if err != nil {
				return err
			}
			done := make(chan error, 1)
			tk.Send([]int{1}, func(_ int, _ int, err error) { done <- err })
			return <-done
		}
		serves := func(replica int, name string) bool {
			for _, p := range s.Snapshot().Replicas[replica].Paces {
				if p.Model == name {
					return p.Serves
				}
			}
			return false
		}
		one.setLost(second, lost)
		for range 20 {
			if err := send(second); err != nil {
				t.Errorf("while another replica has the model: %v", err)
			}
			if err := send(model); err != nil {
				t.Errorf("the other model: %v", err)
			}
		}
		if serves(0, second) || !serves(0, model) || !serves(1, second) || !s.Snapshot().Replicas[0].Usable {
			t.Errorf("%+v", s.Snapshot().Replicas)
		}
		other.setLost(second, lost)
		var err error
		for range 3 {
			err = send(second)
		}
		if refersam.ErrorCode(err) != refersam.CodeNotReady || refersam.ErrorCode(s.Trouble(second)) != refersam.CodeNotReady {
			t.Errorf("without a replica for it: %v, trouble %v", err, s.Trouble(second))
		}
		if err := send(model); err != nil || s.Trouble(model) != nil {
			t.Errorf("the other model: %v, trouble %v", err, s.Trouble(model))
		}
		one.setLost(second, nil)
		if err := s.WaitUsable(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		if err := send(second); err != nil {
			t.Errorf("when a replica has it again: %v", err)
		}
	})
}

// TestScheduler_neverReached has a replica that no model was ever run on.
func TestScheduler_neverReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := newMachine("away")
		away.setFail(func() error { return &refersam.Error{Code: refersam.CodeUnavailable, Message: "away"} })
		s, err := schedule.New[int, int](schedule.DefaultConfig(), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SetReplicas([]schedule.Replica[int, int]{away})
		time.Sleep(time.Minute)
		if s.Usable() || s.Snapshot().Replicas[0].Usable {
			t.Error("a replica is usable before there is a model")
		}
		s.SetModels(map[string]int{model: maxBatch})
		time.Sleep(time.Minute)
		if s.Usable() {
			t.Error("a replica is usable that cannot be reached")
		}
		away.setFail(nil)
		time.Sleep(5 * time.Second)
		if !s.Usable() {
			t.Error("a replica that is back is not usable")
		}
	})
}
