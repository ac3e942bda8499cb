package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
	"pgregory.net/rapid"
)

// kinds are servers of very different speeds: fixed and perRow, alone and
// spaced.
var kinds = map[string][4]time.Duration{
	"pipeline": {8 * time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, time.Millisecond},
	"gpu":      {30 * time.Millisecond, time.Millisecond, 20 * time.Millisecond, time.Millisecond},
	"cpu":      {5 * time.Millisecond, 40 * time.Millisecond, 4 * time.Millisecond, 35 * time.Millisecond},
	"slow":     {0, 2 * time.Second, 0, 2 * time.Second}, // 20 times that is less than a probe may take
	"tiny":     {500 * time.Microsecond, 100 * time.Microsecond, 500 * time.Microsecond, 50 * time.Microsecond},
}

func drawKind(t *rapid.T) *machine {
	kind := kinds[rapid.SampledFrom([]string{"pipeline", "gpu", "cpu", "slow", "tiny"}).Draw(t, "kind")]
	return &machine{name: "a", fixed: kind[0], perRow: kind[1], spacedFixed: kind[2], spacedPerRow: kind[3]}
}

var errRefused = errors.New("refused")

// one sends a job and returns how it ended.
func one(s *scheduler, j schedule.Job) error {
	ticket, err := s.Admit(j)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	done := make(chan error, j.Rows)
	ticket.Send(make([]int, j.Rows), func(_, _ int, err error) { done <- err })
	for range j.Rows {
		if e := <-done; e != nil {
			err = e
		}
	}
	return err
}

// property checks drawn values in synthetic time. draw draws them, outside of
// the bubble that rapid knows nothing of, and returns what is checked with them.
func property(t *testing.T, draw func(*rapid.T) func(*testing.T) error) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		var err error
		check := draw(rt)
		synctest.Test(t, func(t *testing.T) { err = check(t) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// TestForecast_healsSlow measures a server at a moment at which it is 20 times
// as slow as later. No job is refused for that, neither single rows nor larger
// ones, and after 5 batches the forecast is right.
func TestForecast_healsSlow(t *testing.T) {
	property(t, func(rt *rapid.T) func(*testing.T) error {
		m := drawKind(rt)
		m.stretch = rapid.Float64Range(1, 20).Draw(rt, "times as slow")
		rows := rapid.IntRange(1, maxBatch).Draw(rt, "rows")
		return func(t *testing.T) error {
			s := start(t, schedule.DefaultConfig(), m)
			defer s.Close()
			m.setStretch(1)
			for i := range 100 {
				if err := one(s, job(rows, 3*m.alone(rows))); err != nil {
					return fmt.Errorf("job %d: %w", i, err)
				}
				if i == 4 {
					if err := checkPace(s, m, rows); err != nil {
						return err
					}
				}
			}
			return nil
		}
	})
}

// TestForecast_healsFast measures a server at a moment at which it is 20 times
// as fast as later. After 5 batches, jobs that cannot be in time are refused but
// for trials.
func TestForecast_healsFast(t *testing.T) {
	property(t, func(rt *rapid.T) func(*testing.T) error {
		m := drawKind(rt)
		m.stretch = 1 / rapid.Float64Range(1, 20).Draw(rt, "times as fast")
		rows := rapid.IntRange(1, maxBatch).Draw(rt, "rows")
		part := rapid.Float64Range(0.3, 0.9).Draw(rt, "deadline as part of the duration")
		return func(t *testing.T) error {
			s := start(t, schedule.DefaultConfig(), m)
			defer s.Close()
			m.setStretch(1)
			within := time.Duration(part * float64(m.alone(rows)))
			admitted := 0
			for range 30 {
				err := one(s, job(rows, within))
				if refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded {
					return fmt.Errorf("a job of %v with a deadline of %v ended with %s", m.alone(rows), within, fmt.Sprint(err))
				}
				if !errors.Is(err, errRefused) {
					admitted++
				}
				time.Sleep(m.alone(rows)) // the server goes on with what was given up
			}
			if admitted > 5+5+4 {
				return fmt.Errorf("%d of 30 jobs in vain were admitted, allowed: 5, 5 trials, and 4 that are ever further apart", admitted)
			}
			for range 5 {
				if err := one(s, job(rows, 3*m.alone(rows))); err != nil {
					return fmt.Errorf("a job with enough time: %w", err)
				}
			}
			return checkPace(s, m, rows)
		}
	})
}

// batches returns how many batches of real rows came.
func (m *machine) batches() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sizes)
}

// checkPace expects the forecast for a number of rows to be right, and none for
// fewer rows to be longer than one for more.
func checkPace(s *scheduler, m *machine, rows int) error {
	sizes := s.Snapshot().Replicas[0].Paces[0].Sizes
	for i, size := range sizes {
		if i > 0 && size.Alone < sizes[i-1].Alone {
			return fmt.Errorf("%d rows take %v, %d rows %v", sizes[i-1].Rows, sizes[i-1].Alone, size.Rows, size.Alone)
		}
	}
	for _, size := range sizes {
		if size.Rows != rows {
			continue
		}
		if ratio := float64(size.Alone) / float64(m.alone(rows)); ratio < 1/1.5 || ratio > 1.5 {
			return fmt.Errorf("after 5 batches %d rows are believed to take %v, they take %v", rows, size.Alone, m.alone(rows))
		}
		return nil
	}
	return fmt.Errorf("nothing is known of %d rows: %+v", rows, sizes)
}

// TestForecast_drifts changes the speed of a server for good after many batches,
// by up to 20 times in either direction.
func TestForecast_drifts(t *testing.T) {
	property(t, func(rt *rapid.T) func(*testing.T) error {
		m := drawKind(rt)
		rows := rapid.IntRange(1, maxBatch).Draw(rt, "rows")
		before := rapid.IntRange(1, 100).Draw(rt, "batches before")
		stretch := rapid.Float64Range(1.0/20, 20).Draw(rt, "stretch")
		return func(t *testing.T) error {
			s := start(t, schedule.DefaultConfig(), m)
			defer s.Close()
			for range before {
				if err := one(s, job(rows, 3*m.alone(rows))); err != nil {
					return fmt.Errorf("before: %w", err)
				}
			}
			m.setStretch(stretch)
			for range 5 {
				if err := one(s, job(rows, time.Hour)); err != nil {
					return fmt.Errorf("after: %w", err)
				}
			}
			m.fixed, m.perRow = time.Duration(stretch*float64(m.fixed)), time.Duration(stretch*float64(m.perRow))
			return checkPace(s, m, rows)
		}
	})
}

// TestForecast_overloadAfterWrongStart measures a server as 20 times too slow or
// too fast and then offers it twice its capacity: it does nearly all that it
// can, and answers what it admits in time.
func TestForecast_overloadAfterWrongStart(t *testing.T) {
	for _, stretch := range []float64{20, 1.0 / 20} {
		m := newMachine("a")
		m.stretch = stretch
		out := offerTo(t, schedule.DefaultConfig(), steady(2), 500*time.Millisecond, func() { m.setStretch(1) }, m)
		t.Logf("measured %v times as long: %+v", stretch, out)
		if out.goodput < 0.9 || float64(out.late) > 0.02*float64(out.admitted) {
			t.Errorf("measured %v times as long: goodput %.2f of the capacity, %d of %d admitted were late", stretch, out.goodput, out.late, out.admitted)
		}
	}
}

// TestForecast_sizeBelieved has rows one at a time for long after a batch of 8
// was measured at a bad moment: the single rows decide what one row takes, and
// bound what 8 rows can take.
func TestForecast_sizeBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s, err := schedule.New[int, int](schedule.DefaultConfig(), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SetModels(map[string]int{model: maxBatch})
		s.SetReplicas([]schedule.Replica[int, int]{slowBatches{m, 100}})
		if err := s.WaitUsable(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := one(s, job(1, 3*m.alone(1))); err != nil {
				t.Fatal(err)
			}
		}
		sizes := s.Snapshot().Replicas[0].Paces[0].Sizes
		if one := sizes[0]; one.Rows != 1 || one.Alone != m.alone(1) {
			t.Errorf("%+v, want that 1 row takes %v", one, m.alone(1))
		}
		if full := sizes[len(sizes)-1]; full.Rows != maxBatch || full.Alone > maxBatch*m.alone(1) {
			t.Errorf("%+v, want that 8 rows take no more than 8 times one row, %v", full, maxBatch*m.alone(1))
		}
	})
}

// slowBatches is a machine that takes several times as long for blank batches
// of more than one row.
type slowBatches struct {
	*machine
	times int
}

func (s slowBatches) Warm(ctx context.Context, model string, n int) error {
	for range s.times - 1 {
		if n > 1 {
			if err := s.work(ctx, n); err != nil {
				return err
			}
		}
	}
	return s.machine.Warm(ctx, model, n)
}

// TestForecast_unseenBatch has a server that is too slow to be measured with
// more than one row. Its jobs are not judged by a batch of 8 that never was.
func TestForecast_unseenBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		m.fixed, m.perRow, m.spacedFixed, m.spacedPerRow = 0, 6*time.Second, 0, 6*time.Second
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		if rows := m.blankRows(model); rows != 1 {
			t.Errorf("a server whose row takes 6 s was measured with %d rows", rows)
		}
		var got asked
		for i := range 2 { // they take 12 s
			got.ask(t, s, job(1, 30*time.Second), i+1)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(got.answers) != 2 || got.answers[0].err != nil || got.answers[1].err != nil {
			t.Errorf("answers %+v", got.answers)
		}
	})
}

// blankRows returns how many blank rows of a model ran.
func (m *machine) blankRows(model string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := 0
	for _, b := range m.blank {
		if b.model == model {
			rows += b.rows
		}
	}
	return rows
}

// TestMeasure_beforeUsable has every server measured with one model after the
// other, within the budget, before WaitUsable returns. A server that has not
// answered a single row is not waited for.
func TestMeasure_beforeUsable(t *testing.T) {
	const other = model + "-other"
	property(t, func(rt *rapid.T) func(*testing.T) error {
		var machines []*machine
		var replicas []schedule.Replica[int, int]
		for i := range rapid.IntRange(1, 3).Draw(rt, "servers") {
			m := drawKind(rt)
			m.name = fmt.Sprint("server ", i)
			machines, replicas = append(machines, m), append(replicas, m)
		}
		early := rapid.Bool().Draw(rt, "servers are known before models")
		return func(t *testing.T) error {
			s, err := schedule.New[int, int](schedule.DefaultConfig(), nil, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer s.Close()
			if early {
				s.SetReplicas(replicas)
				time.Sleep(time.Second)
			}
			s.SetModels(map[string]int{model: maxBatch, other: maxBatch})
			s.SetReplicas(replicas)
			begin := time.Now()
			if err := s.WaitUsable(t.Context(), model, other); err != nil {
				return err
			}
			took := time.Since(begin)
			for _, m := range machines {
				if m.inFlight > 0 && len(m.blank) > 1 {
					return fmt.Errorf("%s still runs blank rows", m.name)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			slowest := time.Duration(0)
			for _, m := range machines {
				slowest = max(slowest, m.alone(1))
				changes := 0
				for i, b := range m.blank {
					if i > 0 && b.model != m.blank[i-1].model {
						changes++
					}
				}
				if changes != 1 {
					return fmt.Errorf("%s was not measured with one model after the other: %v", m.name, m.blank)
				}
			}
			if most := 2 * (slowest + 2*time.Second); took > most {
				return fmt.Errorf("usable after %v, allowed: %v", took, most)
			}
			return nil
		}
	})
}

// No blank batch has more rows than a batch may have, because the server may not be
// able to run more.
func TestMeasure_atMostMaxRows(t *testing.T) {
	for maxRows, want := range map[int]int{0: maxBatch, 3: 3, 1: 1, maxBatch + 1: maxBatch} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine("a")
			cfg := schedule.DefaultConfig()
			cfg.MaxRows = maxRows
			s := start(t, cfg, m)
			defer s.Close()
			time.Sleep(time.Minute)
			synctest.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			most := 0
			for _, b := range m.blank {
				most = max(most, b.rows)
			}
			if most != want {
				t.Errorf("with %d rows per batch at most, blank batches had up to %d, want %d", maxRows, most, want)
			}
		})
	}
}

// TestMeasure_newcomerBesideWork has a server join while another one serves: it
// runs one blank row of the model and no more, and is used.
func TestMeasure_newcomerBesideWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMachine("a"), newMachine("b")
		s := start(t, schedule.DefaultConfig(), a)
		defer s.Close()
		stop := saturate(t, s, 64)
		time.Sleep(time.Second)
		s.SetReplicas([]schedule.Replica[int, int]{a, b})
		time.Sleep(time.Second)
		if rows := b.blankRows(model); rows != 1 {
			t.Errorf("a newcomer beside work ran %d blank rows, want 1", rows)
		}
		if b.batches() == 0 {
			t.Error("the newcomer was not used")
		}
		stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
	})
}

// TestMeasure_stopsForWork sends a row while a model that is new is measured on
// the server: the row waits for one blank batch at most.
func TestMeasure_stopsForWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		m.fixed, m.perRow, m.spacedFixed, m.spacedPerRow = 0, 20*time.Millisecond, 0, 20*time.Millisecond
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		const other = model + "-other"
		s.SetModels(map[string]int{model: maxBatch, other: maxBatch})
		time.Sleep(100 * time.Millisecond)
		running := m.blankRows(other)
		var got asked
		begin := time.Now()
		got.ask(t, s, job(1, 10*time.Second), 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(got.answers) != 1 || got.answers[0].err != nil {
			t.Fatalf("answers %+v", got.answers)
		}
		if took, most := got.answers[0].at.Sub(begin), m.alone(maxBatch)+m.alone(1); took > most {
			t.Errorf("the row took %v, allowed: %v", took, most)
		}
		if rows := m.blankRows(other); running < 2 || rows != running {
			t.Errorf("%d blank rows before the real one, %d in all", running, rows)
		}
		if err := s.WaitUsable(t.Context(), model, other); err != nil {
			t.Error(err)
		}
	})
}

// TestForecast_doubtIsBounded has a server that takes 6 s, and clients that want
// an answer within 1 s all the time: trials in vain take a small part of its
// time, and a job that has time enough is not kept from it.
func TestForecast_doubtIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		m.fixed, m.perRow, m.spacedFixed, m.spacedPerRow = 0, 6*time.Second, 0, 6*time.Second
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		var wait sync.WaitGroup
		defer wait.Wait()
		for begin := time.Now(); time.Since(begin) < time.Hour; time.Sleep(time.Second) {
			if ticket, err := s.Admit(job(1, time.Second)); err == nil {
				ticket.Send([]int{1}, func(int, int, error) {})
			}
		}
		if most := 5 + 5 + 3600/120; m.batches() > most {
			t.Errorf("%d trials in vain in an hour, allowed: %d", m.batches(), most)
		}
		time.Sleep(time.Minute)
		if err := one(s, job(1, 20*time.Second)); err != nil {
			t.Errorf("a job with time enough: %v", err)
		}
	})
}

// TestForecast_confirmed has a batch confirm the forecast: a job that cannot be
// in time is refused at once, and no trial takes the server's time.
func TestForecast_confirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		if err := one(s, job(1, time.Second)); err != nil {
			t.Fatal(err)
		}
		before := m.batches()
		if err := one(s, job(1, m.alone(1)/2)); !errors.Is(err, errRefused) || m.batches() != before {
			t.Errorf("a job in vain ended with %v after %d batches", err, m.batches()-before)
		}
	})
}

// TestForecast_afterBadMoment has a server that does not answer in time for 5
// jobs, and then does again: the next job is not refused for that.
func TestForecast_afterBadMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine("a")
		s := start(t, schedule.DefaultConfig(), m)
		defer s.Close()
		m.setStretch(1000)
		for range 5 {
			if err := one(s, job(1, time.Second)); refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded {
				t.Fatal(err)
			}
		}
		m.setStretch(1)
		m.mu.Lock()
		m.last = time.Time{} // it was started anew
		m.mu.Unlock()
		for i := range 100 {
			if err := one(s, job(1, time.Second)); err != nil {
				t.Fatalf("job %d afterwards: %v", i, err)
			}
		}
	})
}

// device is a Replica with one device that its batches use in turns, as the stages
// of an ensemble use a GPU: batches that are sent together end nearly together.
type device struct {
	*machine
	busy chan struct{}
}

func (d device) Warm(ctx context.Context, model string, n int) error {
	const turns = 20
	for range turns {
		d.busy <- struct{}{}
		time.Sleep(d.alone(n) / turns)
		<-d.busy
	}
	return nil
}

// TestMeasure_sharedDevice measures a server that takes as long for each of
// several batches as for one alone: the ends of the batches lie close together,
// but the server is no faster for that.
func TestMeasure_sharedDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := device{newMachine("a"), make(chan struct{}, 1)}
		s, err := schedule.New[int, int](schedule.DefaultConfig(), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SetModels(map[string]int{model: maxBatch})
		s.SetReplicas([]schedule.Replica[int, int]{d})
		if err := s.WaitUsable(t.Context(), model); err != nil {
			t.Fatal(err)
		}
		sizes := s.Snapshot().Replicas[0].Paces[0].Sizes
		if full := sizes[len(sizes)-1]; float64(full.Spaced) < 0.9*float64(d.alone(maxBatch)) {
			t.Errorf("a busy server is believed to be done with 8 rows every %v, it takes %v", full.Spaced, d.alone(maxBatch))
		}
	})
}
