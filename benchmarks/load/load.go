// Package load sends an HTTP service a load that does not wait for it.
//
// Requests are sent at the times of a Poisson process, without waiting for earlier
// ones, and their latency counts from these times. So a service that falls behind
// cannot slow the load down, and the wait of requests that could not be sent yet is
// included.
package load

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Shape is how many requests per second arrive, over time.
type Shape struct {
	Name string
	// Rate is the rate at a time since the start. It must never be above Peak.
	Rate func(at time.Duration) float64
	Peak float64
}

// Steady is a constant rate.
func Steady(rate float64) Shape {
	return Shape{"steady", func(time.Duration) float64 { return rate }, rate}
}

// Bursts is a low rate with a fifth of every period at a high rate.
func Bursts(low, high float64, period time.Duration) Shape {
	return Shape{"bursts", func(at time.Duration) float64 {
		if at%period < period/5 {
			return high
		}
		return low
	}, max(low, high)}
}

// Ramp goes from one rate to another in the given time.
func Ramp(from, to float64, over time.Duration) Shape {
	return Shape{"ramp", func(at time.Duration) float64 {
		return from + (to-from)*min(1, at.Seconds()/over.Seconds())
	}, max(from, to)}
}

// Arrivals are the times of a Poisson process of the shape's rate, in order.
func Arrivals(random *rand.Rand, s Shape, duration time.Duration) []time.Duration {
	var arrivals []time.Duration
	if s.Peak <= 0 {
		return nil
	}
	for at := 0.0; ; {
		at += random.ExpFloat64() / s.Peak
		moment := time.Duration(at * float64(time.Second))
		if moment >= duration {
			return arrivals
		}
		// Each arrival of a process with the peak rate stays with the probability
		// of the present rate divided by the peak.
		if random.Float64()*s.Peak < s.Rate(moment) {
			arrivals = append(arrivals, moment)
		}
	}
}

// Request is one request for masks.
type Request struct {
	Picture []byte
	Phrases []string
	// Deadline is sent to the service, and a later answer counts as late. 0 means
	// none.
	Deadline time.Duration
}

// Outcome is the outcome of a request.
type Outcome struct {
	// At is when it was due, since the start.
	At time.Duration
	// Latency is from when the request was due until its answer was read.
	Latency time.Duration
	// Status is the answer's status, 0 if there was no answer.
	Status int
	// Rows is how many phrases the request has.
	Rows int
	// Late reports that Latency is more than the deadline.
	Late bool
	Err  error
}

// OK reports whether the request was answered in time.
func (o *Outcome) OK() bool { return o.Status == http.StatusOK && o.Err == nil && !o.Late }

// Refused reports whether the service refused the request.
func (o *Outcome) Refused() bool {
	return o.Status == http.StatusServiceUnavailable || o.Status == http.StatusTooManyRequests
}

// Expired reports whether the service accepted the request and gave up later. This
// is not a refusal, because the client has waited.
func (o *Outcome) Expired() bool { return o.Status == http.StatusGatewayTimeout }

// Target is a service under load.
type Target struct {
	url    string
	client *http.Client
}

// patience is how long the client waits for a request without a deadline.
const patience = time.Minute

// NewTarget returns the service at a base URL such as http://127.0.0.1:8080.
func NewTarget(url string) *Target {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &Target{url + "/v1/segment", &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DialContext:         dialer.DialContext,
			MaxIdleConnsPerHost: 4096,
			DisableCompression:  true,
			WriteBufferSize:     64 << 10,
		},
	}}
}

// Close ends the idle connections.
func (t *Target) Close() { t.client.CloseIdleConnections() }

// Do sends one request and reads its answer. due is when it should have been sent,
// begin is when the load began.
func (t *Target) Do(ctx context.Context, r Request, begin, due time.Time) Outcome {
	status, err := t.send(ctx, r)
	latency := time.Since(due)
	return Outcome{
		At: due.Sub(begin), Latency: latency, Status: status, Rows: len(r.Phrases), Err: err,
		Late: r.Deadline > 0 && latency > r.Deadline,
	}
}

func (t *Target) send(ctx context.Context, r Request) (status int, err error) {
	body, size := formBody(r)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	resp, err := t.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// Open sends the requests that next makes at the arrivals of a shape, and
// returns their outcomes in the order of their due times. It returns when all
// requests have ended.
func (t *Target) Open(ctx context.Context, random *rand.Rand, s Shape, duration time.Duration, next func() Request) []Outcome {
	arrivals := Arrivals(random, s, duration)
	outcomes := make([]Outcome, len(arrivals))
	var wait sync.WaitGroup
	begin := time.Now()
	for i, at := range arrivals {
		request := next()
		due := begin.Add(at)
		time.Sleep(time.Until(due))
		wait.Go(func() { outcomes[i] = t.Do(ctx, request, begin, due) })
	}
	wait.Wait()
	return outcomes
}

// Closed keeps as many requests in flight as there are clients, and so measures the
// maximum throughput of the service. next is called by one client at a time.
func (t *Target) Closed(ctx context.Context, clients int, duration time.Duration, next func() Request) []Outcome {
	begin := time.Now()
	return t.ClosedWhile(ctx, clients, func() bool { return time.Since(begin) < duration }, next)
}

// ClosedWhile is Closed as long as more returns true. It is called like next.
func (t *Target) ClosedWhile(ctx context.Context, clients int, more func() bool, next func() Request) []Outcome {
	var (
		mu       sync.Mutex
		outcomes []Outcome
		wait     sync.WaitGroup
	)
	begin := time.Now()
	for range clients {
		wait.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for ctx.Err() == nil && more() {
				request := next()
				mu.Unlock()
				outcome := t.Do(ctx, request, begin, time.Now())
				mu.Lock()
				outcomes = append(outcomes, outcome)
			}
		})
	}
	wait.Wait()
	return outcomes
}

// Summary summarises the outcomes of many requests. Times are in milliseconds.
type Summary struct {
	Requests int     `json:"requests"`
	OK       int     `json:"ok"`
	Late     int     `json:"late"`
	Expired  int     `json:"expired"`
	Refused  int     `json:"refused"`
	Failed   int     `json:"failed"`
	Offered  float64 `json:"offered_rows_per_second"`
	// Goodput counts rows answered in time.
	Goodput float64 `json:"goodput_rows_per_second"`
	// Accepted is the latency of requests that were not refused: answered in time,
	// late or given up.
	Accepted Latency `json:"accepted_ms"`
	Refusal  Latency `json:"refusal_ms"`
	// Failures counts requests that were neither answered nor refused, by kind.
	Failures map[string]int `json:"failures,omitempty"`
}

// Latency holds percentiles, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Summarize summarises the outcomes of the requests that were due from one time to
// another after the start.
func Summarize(outcomes []Outcome, from, to time.Duration) Summary {
	s := Summary{Failures: map[string]int{}}
	var accepted, refused []time.Duration
	var rows, good int
	for i := range outcomes {
		o := &outcomes[i]
		if o.At < from || o.At >= to {
			continue
		}
		s.Requests++
		rows += o.Rows
		switch {
		case o.OK():
			s.OK++
			good += o.Rows
			accepted = append(accepted, o.Latency)
		case o.Status == http.StatusOK && o.Err == nil:
			s.Late++
			accepted = append(accepted, o.Latency)
		case o.Expired():
			s.Expired++
			accepted = append(accepted, o.Latency)
		case o.Refused():
			s.Refused++
			refused = append(refused, o.Latency)
		default:
			s.Failed++
			s.Failures[failure(o)]++
		}
	}
	seconds := (to - from).Seconds()
	s.Offered, s.Goodput = float64(rows)/seconds, float64(good)/seconds
	s.Accepted, s.Refusal = percentiles(accepted), percentiles(refused)
	return s
}

func failure(o *Outcome) string {
	if o.Err != nil {
		return o.Err.Error()
	}
	return "status " + strconv.Itoa(o.Status)
}

// Throughput is how many rows per second were answered from one time to another
// after the start, counted when the answer arrived.
func Throughput(outcomes []Outcome, from, to time.Duration) float64 {
	rows := 0
	for _, o := range outcomes {
		if done := o.At + o.Latency; o.Status == http.StatusOK && done >= from && done < to {
			rows += o.Rows
		}
	}
	return float64(rows) / (to - from).Seconds()
}

func percentiles(latencies []time.Duration) Latency {
	return Latency{
		Percentile(latencies, 50), Percentile(latencies, 90), Percentile(latencies, 99), Percentile(latencies, 100),
	}
}

// Percentile returns the latency that p percent do not exceed, in
// milliseconds; 0 if there is none. It sorts the latencies.
func Percentile(latencies []time.Duration, p float64) float64 {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	rank := int(math.Ceil(p/100*float64(len(latencies)))) - 1
	return float64(latencies[max(0, rank)].Microseconds()) / 1000
}

// String is the summary in a line.
func (s Summary) String() string {
	return fmt.Sprintf("%d requests, %.1f rows/s offered, %.1f good; ok %d, accepted p50 %.1f p99 %.1f ms, late %d, expired %d, refused %d (p50 %.1f p99 %.1f ms), failed %d %v",
		s.Requests, s.Offered, s.Goodput, s.OK, s.Accepted.P50, s.Accepted.P99, s.Late, s.Expired, s.Refused, s.Refusal.P50, s.Refusal.P99, s.Failed, s.Failures)
}
