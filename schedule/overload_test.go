package schedule_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
)

// outcome is what an open-loop load came to.
type outcome struct {
	goodput  float64 // rows answered in time a second, of the capacity
	refused  int
	late     int // admitted, but not answered in time
	admitted int
	p99      time.Duration // of the admitted
}

// shape returns how many times the capacity arrives at a moment.
type shape func(since time.Duration) float64

func steady(load float64) shape { return func(time.Duration) float64 { return load } }

// bursts alternates between nothing much and far too much.
func bursts(since time.Duration) float64 {
	if since%time.Second < 200*time.Millisecond {
		return 3
	}
	return 0.3
}

func ramp(since time.Duration) float64 { return 0.1 + since.Seconds()/20 }

// offer sends single rows with a deadline, at the times of a Poisson process,
// for 30 seconds.
func offer(t *testing.T, cfg schedule.Config, load shape, within time.Duration, machines ...*machine) outcome {
	t.Helper()
	return offerTo(t, cfg, load, within, func() {}, machines...)
}

// offerTo is offer that calls begun when the machines have been measured.
func offerTo(t *testing.T, cfg schedule.Config, load shape, within time.Duration, begun func(), machines ...*machine) outcome {
	t.Helper()
	const length = 30 * time.Second
	var out outcome
	synctest.Test(t, func(t *testing.T) {
		s := start(t, cfg, machines...)
		defer s.Close()
		begun()
		capacity := 0.0
		for _, m := range machines {
			capacity += m.capacity()
		}
		var (
			got   asked
			begin = time.Now()
			sent  []time.Time
		)
		for time.Since(begin) < length {
			rate := capacity * load(time.Since(begin))
			time.Sleep(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
			ticket, err := s.Admit(job(1, within))
			if err != nil {
				if code := refersam.ErrorCode(err); code != refersam.CodeOverloaded {
					t.Errorf("refused with %v", err)
				}
				out.refused++
				continue
			}
			ticket.Send([]int{len(sent)}, got.take([]int{len(sent)}))
			sent = append(sent, time.Now())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		out.admitted = len(sent)
		var took []time.Duration
		good := 0
		for _, a := range got.answers {
			d := a.at.Sub(sent[a.row])
			took = append(took, d)
			if a.err != nil || d > within {
				out.late++
			} else {
				good++
			}
		}
		if len(took) != len(sent) {
			t.Fatalf("%d rows admitted, %d answered", len(sent), len(took))
		}
		slices.Sort(took)
		out.p99 = took[len(took)*99/100]
		out.goodput = float64(good) / length.Seconds() / capacity
	})
	return out
}

func TestOverload(t *testing.T) {
	const within = 500 * time.Millisecond
	for _, load := range []float64{0.5, 0.9, 2, 10} {
		for _, jitter := range []float64{0, 0.3} {
			m := newMachine("a")
			m.jitter = jitter
			// Jitter slows the machine down by its mean.
			reachable := min(load, 1/(1+jitter))
			out := offer(t, schedule.DefaultConfig(), steady(load), within, m)
			t.Logf("load %v, jitter %v: %+v", load, jitter, out)
			if out.goodput < 0.9*reachable {
				t.Errorf("load %v, jitter %v: goodput %.2f of the capacity, want %.2f", load, jitter, out.goodput, 0.9*reachable)
			}
			// Few of the percentiles' samples are independent of one another: with
			// jitter a little more than one in 100 is late.
			if out.p99 > within || float64(out.late) > (0.01+0.1*jitter)*float64(out.admitted) {
				t.Errorf("load %v, jitter %v: p99 %v, %d of %d admitted were late", load, jitter, out.p99, out.late, out.admitted)
			}
			if load < 0.6 && out.refused > 0 {
				t.Errorf("load %v: %d refused", load, out.refused)
			}
		}
	}
}

// TestOverload_withoutAdmission shows what admission is for.
func TestOverload_withoutAdmission(t *testing.T) {
	cfg := schedule.DefaultConfig()
	cfg.Admission = false
	cfg.MaxQueueRows = 1 << 20
	out := offer(t, cfg, steady(2), 500*time.Millisecond, newMachine("a"))
	if out.goodput > 0.3 {
		t.Errorf("goodput %.2f without admission: the test above proves nothing", out.goodput)
	}
}

func TestScheduler_scales(t *testing.T) {
	for _, n := range []int{2, 4, 8} {
		machines := make([]*machine, n)
		for i := range machines {
			machines[i] = newMachine(string(rune('a' + i)))
		}
		out := offer(t, schedule.DefaultConfig(), steady(2), time.Second, machines...)
		t.Logf("%d replicas: %+v", n, out)
		if out.goodput < 0.95 {
			t.Errorf("%d replicas: %.2f of their capacity", n, out.goodput)
		}
	}
}

// TestAdaptive compares the adaptive mode with fixed settings over three
// shapes of load: it is never much worse than the best of them, and over all
// shapes none is better.
func TestAdaptive(t *testing.T) {
	const within = 100 * time.Millisecond
	shapes := map[string]shape{"steady": steady(0.8), "bursts": bursts, "ramp": ramp}
	settings := map[string]func(*schedule.Settings){"adaptive": func(*schedule.Settings) {}}
	for _, wait := range []time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
		for _, rows := range []int{1, 4, 8} {
			settings[wait.String()+"/"+string(rune('0'+rows))] = func(s *schedule.Settings) {
				s.Mode, s.MaxWait, s.MaxRows = schedule.Fixed, wait, rows
			}
		}
	}
	sum := make(map[string]float64)
	for name, load := range shapes {
		goodput := make(map[string]float64)
		best := 0.0
		for which, set := range settings {
			cfg := schedule.DefaultConfig()
			set(&cfg.Settings)
			m := newMachine("a")
			m.jitter = 0.1
			goodput[which] = offer(t, cfg, load, within, m).goodput
			sum[which] += goodput[which]
			if which != "adaptive" {
				best = max(best, goodput[which])
			}
		}
		t.Logf("%s: %.3v", name, goodput)
		if goodput["adaptive"] < 0.95*best {
			t.Errorf("%s: adaptive %.3f, best fixed %.3f", name, goodput["adaptive"], best)
		}
	}
	for which, total := range sum {
		if total > 1.02*sum["adaptive"] {
			t.Errorf("%s is better than adaptive over all: %.3f, %.3f", which, total, sum["adaptive"])
		}
	}
}
