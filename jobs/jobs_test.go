package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
	"github.com/refersam/refersam/tests/await"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite runs on both databases.
func TestSQLite(t *testing.T) {
	suite(t, func(t *testing.T) store.Config { return store.Config{Data: t.TempDir()} })
}

func TestPostgres(t *testing.T) {
	cluster := storetest.NewCluster(t)
	suite(t, func(t *testing.T) store.Config { return store.Config{DatabaseURL: cluster.NewDatabase(t)} })
}

func suite(t *testing.T, newConfig func(*testing.T) store.Config) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"Succeed", testSucceed},
		{"Problems", testProblems},
		{"Overload", testOverload},
		{"Cancel", testCancel},
		{"CancelWhileEnding", testCancelWhileEnding},
		{"SubmitAgain", testSubmitAgain},
		{"PerKey", testPerKey},
		{"Urgent", testUrgent},
		{"List", testList},
		{"Death", testDeath},
		{"Stop", testStop},
		{"Twice", testTwice},
		{"Webhook", testWebhook},
		{"RedeliverOften", testRedeliverOften},
		{"Secrets", testSecrets},
		{"Expire", testExpire},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, &bench{t: t, cfg: newConfig(t)}) })
	}
}

// bench opens engines on one database. They share a clock.
type bench struct {
	t     *testing.T
	cfg   store.Config
	post  jobs.Poster
	clock clock
}

// clock runs with the system's clock, ahead of it by what Advance added. So a
// test can let a retry's delay pass without waiting for it.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }

type engine struct {
	*jobs.Engine
	b     *bench
	state *store.Store
	// cancel ends the context of Run. stop does too, and waits for Run.
	cancel, stop func()
}

var settings = jobs.Config{
	Concurrency: 4, PerKey: 100, Retention: time.Hour, ItemTimeout: time.Minute, Grace: 5 * time.Second,
}

// open returns an engine that accepts jobs and runs none.
func (b *bench) open() *engine {
	b.t.Helper()
	state, err := store.Open(b.t.Context(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	e, err := jobs.OpenAt(b.t.Context(), settings, state, b.post, slog.New(slog.DiscardHandler), b.clock.Now)
	if err != nil {
		b.t.Fatal(err)
	}
	var once sync.Once
	closing := func() {
		once.Do(func() {
			if err := state.Close(); err != nil {
				b.t.Error(err)
			}
		})
	}
	b.t.Cleanup(closing)
	return &engine{e, b, state, func() {}, closing}
}

// causeKey is the key of a value in the context of Run.
type causeKey struct{}

// run returns an engine that runs jobs.
func (b *bench) run(work jobs.Worker) *engine {
	b.t.Helper()
	e := b.open()
	ctx, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(b.t.Context()), causeKey{}, "Run"))
	done := make(chan error, 1)
	go func() {
		done <- e.Run(ctx, work, func(j *jobs.Job) ([]byte, error) {
			return fmt.Appendf(nil, `{"job": %q, "status": %q}`, j.ID, j.Status), nil
		})
	}()
	closing := e.stop
	var once sync.Once
	e.cancel = cancel
	e.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				b.t.Errorf("Run: %v", err)
			}
			closing()
		})
	}
	b.t.Cleanup(e.stop)
	return e
}

// echo is a Worker that reserves an object as the result, with the item's request
// in the header.
func echo(state func() *store.Store) jobs.Worker {
	return func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		name := blobs.NewName()
		err := state().ReserveBlob(ctx, store.Blob{Name: name, APIKey: w.APIKey, Bytes: 1}, 1<<30, time.Now())
		return jobs.Result{Blob: name, Header: append([]byte("header of "), w.Request...)}, err
	}
}

func (b *bench) runEcho() *engine {
	var e *engine
	ready := make(chan struct{})
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		<-ready
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	close(ready)
	return e
}

func (b *bench) work(n int) []jobs.Work {
	items := make([]jobs.Work, n)
	for i := range items {
		items[i] = jobs.Work{ID: fmt.Sprint("i", i), Request: fmt.Append(nil, i), Deadline: b.clock.Now().Add(time.Hour)}
	}
	return items
}

func (e *engine) submit(t *testing.T, items []jobs.Work) *jobs.Job {
	t.Helper()
	return e.submitJob(t, jobs.Submission{APIKey: "k", Kind: "batch", Items: items})
}

func (e *engine) submitJob(t *testing.T, s jobs.Submission) *jobs.Job {
	t.Helper()
	j, err := e.Submit(t.Context(), s, e.b.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// poll calls done until it reports true, and fails after a time that no test
// needs.
func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	await.True(t, 30*time.Second, what, done)
}

// until polls a job of the key k until a condition holds.
func (e *engine) until(t *testing.T, id string, holds func(*jobs.Job) bool) (j *jobs.Job) {
	t.Helper()
	poll(t, "job "+id, func() bool {
		var err error
		if j, err = e.Job(t.Context(), "k", id); err != nil {
			t.Fatal(err)
		}
		return holds(j)
	})
	return j
}

func ended(j *jobs.Job) bool { return j.Status.Ended() }

// wait waits for the end of a job.
func (e *engine) wait(t *testing.T, id string) *jobs.Job {
	t.Helper()
	return e.until(t, id, ended)
}

// passTime makes a condition of until advance the clock with every look, for a
// job that is retried after a delay.
func (b *bench) passTime(holds func(*jobs.Job) bool) func(*jobs.Job) bool {
	return func(j *jobs.Job) bool {
		if holds(j) {
			return true
		}
		b.clock.Advance(100 * time.Millisecond)
		return false
	}
}

// expectEvents checks that the events of a job are numbered without gaps, that
// each item has ended once, and that the job had the statuses own.
func (e *engine) expectEvents(t *testing.T, j *jobs.Job, own ...jobs.Status) {
	t.Helper()
	events, err := e.Events(t.Context(), j.ID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []jobs.Status
	ends := map[int]int{}
	for i, ev := range events {
		if ev.Seq != int64(i+1) {
			t.Errorf("event %d has the number %d", i+1, ev.Seq)
		}
		if ev.Item < 0 {
			got = append(got, ev.Status)
		} else {
			ends[ev.Item]++
		}
	}
	if diff := cmp.Diff(own, got); diff != "" {
		t.Error(diff)
	}
	if len(ends) != j.Total || int64(len(events)) != j.Seq {
		t.Errorf("%d of %d items have ended, %d events of %d", len(ends), j.Total, len(events), j.Seq)
	}
	for item, n := range ends {
		if n != 1 {
			t.Errorf("item %d has ended %d times", item, n)
		}
	}
}

func testSucceed(t *testing.T, b *bench) {
	e := b.runEcho()
	j := e.submit(t, b.work(20))
	if j.Status.Ended() || j.Total != 20 || len(j.Items) != 20 || j.Items[3].ID != "i3" || j.Created.IsZero() {
		t.Errorf("%+v", j)
	}
	j = e.wait(t, j.ID)
	if j.Status != jobs.Succeeded || j.Succeeded != 20 || j.Started.IsZero() || !j.Expires.Equal(j.Finished.Add(settings.Retention)) {
		t.Errorf("%+v", j)
	}
	for i, item := range j.Items {
		if item.Status != jobs.Succeeded || item.Blob == "" || string(item.Header) != fmt.Sprint("header of ", i) {
			t.Errorf("%+v", item)
		}
	}
	e.expectEvents(t, j, jobs.Queued, jobs.Running, jobs.Succeeded)
	if _, err := e.Job(t.Context(), "another", j.ID); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("another key sees the job: %v", err)
	}
	for _, err := range []error{second(e.Item(t.Context(), "another", j.ID, 0)), second(e.Item(t.Context(), "k", j.ID, 20)), second(e.Cancel(t.Context(), "another", j.ID, b.clock.Now())), e.Delete(t.Context(), "another", j.ID, b.clock.Now())} {
		if !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
	if item, err := e.Item(t.Context(), "k", j.ID, 7); err != nil || item.ID != "i7" {
		t.Errorf("%+v, %v", item, err)
	}
}

func second[T any](_ T, err error) error { return err }

// An error of the client ends the item. A fault of the service is retried, but
// not forever.
func testProblems(t *testing.T, b *bench) {
	var tries [5]atomic.Int64
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		n := tries[w.Index].Add(1)
		switch w.Index {
		case 0:
			return jobs.Result{}, &refersam.Error{Code: refersam.CodeInvalidImage, Message: "broken", At: refersam.Named("/image")}
		case 1:
			if n == 1 {
				return jobs.Result{}, refersam.Errorf(refersam.CodeUpstream, "once")
			}
		case 2:
			if n == 1 {
				panic("a bug")
			}
		case 3:
			b.clock.Advance(2 * time.Second) // past the item's deadline
			return jobs.Result{}, refersam.Errorf(refersam.CodeDeadlineExceeded, "late")
		case 4:
			return jobs.Result{}, errors.New("a secret of the service")
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	items := b.work(5)
	items[3].Deadline = b.clock.Now().Add(2 * time.Second)
	j := e.until(t, e.submit(t, items).ID, b.passTime(ended))
	if j.Status != jobs.Failed || j.Succeeded != 2 || j.Failed != 3 {
		t.Errorf("%+v", j)
	}
	if diff := cmp.Diff(&jobs.Problem{Code: "invalid_image", Message: "broken", Field: "/image"}, j.Items[0].Problem); diff != "" {
		t.Error(diff)
	}
	if p := j.Items[3].Problem; p == nil || p.Code != "deadline_exceeded" {
		t.Errorf("%+v", p)
	}
	if p := j.Items[4].Problem; p == nil || p.Code != "internal" || strings.Contains(p.Message, "secret") {
		t.Errorf("%+v", p)
	}
	if tries[0].Load() != 1 || tries[1].Load() != 2 || tries[2].Load() != 2 || tries[4].Load() != 4 {
		t.Errorf("tries: %d %d %d %d", tries[0].Load(), tries[1].Load(), tries[2].Load(), tries[4].Load())
	}
	e.expectEvents(t, j, jobs.Queued, jobs.Running, jobs.Failed)
}

// An item that meets an overloaded service is retried.
func testOverload(t *testing.T, b *bench) {
	var tries atomic.Int64
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		if tries.Add(1) <= 2 {
			return jobs.Result{}, refersam.Errorf(refersam.CodeOverloaded, "busy")
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	if j := e.until(t, e.submit(t, b.work(1)).ID, b.passTime(ended)); j.Status != jobs.Succeeded || tries.Load() != 3 {
		t.Errorf("%d tries: %+v", tries.Load(), j)
	}
}

func testCancel(t *testing.T, b *bench) {
	started, stopped := make(chan string, 20), make(chan struct{}, 20)
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		started <- w.Job
		if w.RequestID == "quick" {
			return echo(func() *store.Store { return e.state })(ctx, w)
		}
		defer func() { stopped <- struct{}{} }()
		<-ctx.Done()
		return jobs.Result{}, ctx.Err()
	})
	j := e.submit(t, b.work(10))
	for range settings.Concurrency {
		<-started
	}
	for range 2 { // a second cancellation changes nothing
		got, err := e.Cancel(t.Context(), "k", j.ID, b.clock.Now())
		if err != nil || got.Status != jobs.Cancelled || got.Cancelled != 10 || got.Items[9].Status != jobs.Cancelled {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	for range settings.Concurrency {
		select {
		case <-stopped:
		case <-time.After(settings.ItemTimeout / 2):
			t.Fatal("a cancelled item goes on")
		}
	}
	e.expectEvents(t, e.wait(t, j.ID), jobs.Queued, jobs.Running, jobs.Cancelled)
	if err := e.Delete(t.Context(), "k", j.ID, b.clock.Now()); err != nil {
		t.Error(err)
	}
	if _, err := e.Job(t.Context(), "k", j.ID); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// The other six items were in front of this job.
	later := e.submitJob(t, jobs.Submission{APIKey: "k", RequestID: "quick", Items: b.work(1)})
	e.wait(t, later.ID)
	if job := <-started; job != later.ID {
		t.Errorf("an item of %s was begun after its cancellation", job)
	}
}

// Cancelling a job while its items end does not deadlock: no call fails, and no
// item runs again.
func testCancelWhileEnding(t *testing.T, b *bench) {
	const items, rounds = 64, 10
	var tries sync.Map
	var e *engine
	progress := make(chan struct{}, items*rounds)
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		if _, again := tries.LoadOrStore(fmt.Sprint(w.Job, w.Index), true); again {
			t.Errorf("item %d of %s runs again", w.Index, w.Job)
		}
		progress <- struct{}{}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	for range rounds {
		j := e.submit(t, b.work(items))
		cancelled := make(chan struct{})
		var group sync.WaitGroup
		var once sync.Once
		for range 3 {
			group.Go(func() {
				for range rand.N(items / 4) {
					select {
					case <-progress:
					case <-cancelled:
					}
				}
				for range 5 {
					if _, err := e.Cancel(t.Context(), "k", j.ID, b.clock.Now()); err != nil {
						t.Error(err)
					}
					once.Do(func() { close(cancelled) })
				}
			})
		}
		group.Wait()
		e.wait(t, j.ID)
	}
}

// A job that is submitted again under its ID is the existing job.
func testSubmitAgain(t *testing.T, b *bench) {
	e := b.open()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			j, err := e.Submit(t.Context(), jobs.Submission{ID: "job_1", APIKey: "k", RequestID: "r", Kind: "batch", Items: b.work(3)}, b.clock.Now())
			if err != nil || j.ID != "job_1" || j.RequestID != "r" || len(j.Items) != 3 {
				t.Errorf("%+v, %v", j, err)
			}
		})
	}
	group.Wait()
	if open, err := e.Backlog(t.Context()); err != nil || open.Items[jobs.Queued] != 3 {
		t.Errorf("%v, %v", open, err)
	}
}

func testPerKey(t *testing.T, b *bench) {
	e := b.open()
	e.submit(t, b.work(99))
	_, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: b.work(2)}, b.clock.Now())
	if refersam.ErrorCode(err) != refersam.CodeQuotaExceeded {
		t.Errorf("%v", err)
	}
	if _, err := e.Submit(t.Context(), jobs.Submission{APIKey: "other", Items: b.work(2)}, b.clock.Now()); err != nil {
		t.Error(err)
	}
	e.submit(t, b.work(1))

	var group sync.WaitGroup
	var taken atomic.Int64
	for range 12 {
		group.Go(func() {
			switch _, err := e.Submit(t.Context(), jobs.Submission{APIKey: "busy", Items: b.work(60)}, b.clock.Now()); {
			case err == nil:
				taken.Add(1)
			case refersam.ErrorCode(err) != refersam.CodeQuotaExceeded:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if taken.Load() != 1 {
		t.Errorf("%d jobs of 60 items were accepted at once for an API key that may have 100 items", taken.Load())
	}
}

// Urgent items run before others that have waited longer.
func testUrgent(t *testing.T, b *bench) {
	var mu sync.Mutex
	var order []string
	e := b.open()
	e.submit(t, b.work(20))
	urgent := b.work(5)
	for i := range urgent {
		urgent[i].ID, urgent[i].Urgent = "urgent", true
	}
	last := e.submit(t, urgent)
	e.stop()
	e = b.run(func(_ context.Context, w *jobs.Work) (jobs.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, w.ID)
		return jobs.Result{}, refersam.Errorf(refersam.CodeInvalidImage, "none")
	})
	e.wait(t, last.ID)
	mu.Lock()
	defer mu.Unlock()
	if n := len(order); n > 5+2*settings.Concurrency {
		t.Errorf("%d items were done before the last urgent one: %v", n, order)
	}
}

func testList(t *testing.T, b *bench) {
	e := b.open()
	var want, got []string
	for range 5 {
		want = append([]string{e.submit(t, b.work(1)).ID}, want...)
	}
	var last *jobs.Job
	for {
		page, err := e.Jobs(t.Context(), "k", last, "", 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, j := range page {
			got = append(got, j.ID)
		}
		last = page[len(page)-1]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := e.Cancel(t.Context(), "k", want[1], b.clock.Now()); err != nil {
		t.Error(err)
	}
	if page, err := e.Jobs(t.Context(), "k", nil, jobs.Cancelled, 9); err != nil || len(page) != 1 || page[0].ID != want[1] {
		t.Errorf("%v, %v", page, err)
	}
	if page, err := e.Jobs(t.Context(), "other", nil, "", 9); err != nil || len(page) != 0 {
		t.Errorf("%v, %v", page, err)
	}
}

// The next process runs the items of a dead one at once, long before their
// timeout, and each ends once.
func testDeath(t *testing.T, b *bench) {
	begun := make(chan struct{}, 100)
	hang := make(chan struct{})
	dead := b.open()
	j := dead.submit(t, b.work(10))
	dead.Kill(t, func(context.Context, *jobs.Work) (jobs.Result, error) {
		begun <- struct{}{}
		<-hang
		return jobs.Result{}, errors.New("dead")
	}, begun, settings.Concurrency)
	t.Cleanup(func() { close(hang) })
	e := b.runEcho()
	if j = e.wait(t, j.ID); j.Status != jobs.Succeeded {
		t.Errorf("%+v", j)
	}
	e.expectEvents(t, j, jobs.Queued, jobs.Running, jobs.Succeeded)
}

// Items that run at the stop finish; the next process runs the rest. Their context
// has the values of Run's context, but does not end with it.
func testStop(t *testing.T, b *bench) {
	began, release := make(chan struct{}, 10), make(chan struct{})
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		began <- struct{}{}
		<-release
		if cause := ctx.Value(causeKey{}); cause != "Run" || ctx.Err() != nil {
			t.Errorf("the context comes from %v: %v", cause, ctx.Err())
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	j := e.submit(t, b.work(10))
	for range settings.Concurrency {
		<-began
	}
	e.cancel()
	close(release)
	e.stop()
	next := b.open()
	after, err := next.Job(t.Context(), "k", j.ID)
	if err != nil || after.Succeeded < settings.Concurrency {
		t.Errorf("%+v, %v", after, err)
	}
	for _, item := range after.Items {
		if item.Status == jobs.Running {
			t.Errorf("item %d is still running", item.Index)
		}
	}
	next.stop()
	last := b.runEcho()
	last.expectEvents(t, last.wait(t, j.ID), jobs.Queued, jobs.Running, jobs.Succeeded)
}

// An item that runs several times at once ends once.
func testTwice(t *testing.T, b *bench) {
	var e *engine
	var begun atomic.Int64
	together := make(chan struct{})
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		if begun.Add(1) == int64(settings.Concurrency) {
			close(together)
		}
		select {
		case <-together:
		case <-ctx.Done():
			return jobs.Result{}, ctx.Err()
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	j := e.submit(t, b.work(1))
	e.Duplicate(t, j.ID, 0, settings.Concurrency-1)
	j = e.wait(t, j.ID)
	poll(t, "the duplicates", func() bool { return e.UnfinishedRiverJobs(t, "item") == 0 })
	e.expectEvents(t, j, jobs.Queued, jobs.Running, jobs.Succeeded)
}

// poster sends to a server of the test.
type poster struct{ client *http.Client }

func (p poster) Post(ctx context.Context, url string, header http.Header, body []byte) (int, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(body)))
	if err != nil {
		return 0, 0, err
	}
	req.Header = header
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, 0, nil
}

// A webhook is sent under one id until the receiver accepts it, signed with the
// secret of its API key.
func testWebhook(t *testing.T, b *bench) {
	type message struct {
		header http.Header
		body   string
	}
	heard := make(chan message, 10)
	var status atomic.Int64
	status.Store(http.StatusInternalServerError)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(int(status.Load()))
		heard <- message{r.Header, string(body)}
	}))
	defer server.Close()
	b.post = poster{server.Client()}
	e := b.runEcho()
	secrets, err := e.Secrets(t.Context(), "k", b.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := standardwebhooks.NewWebhook(secrets.Current)
	if err != nil {
		t.Fatal(err)
	}
	j, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: b.work(2), WebhookURL: server.URL + "/hook"}, b.clock.Now())
	if err != nil || j.Webhook == nil || j.Webhook.Status != jobs.Pending {
		t.Fatalf("%+v, %v", j, err)
	}
	next := func() message {
		t.Helper()
		select {
		case m := <-heard:
			if err := verifier.Verify([]byte(m.body), m.header); err != nil {
				t.Errorf("the signature: %v", err)
			}
			if m.header.Get("Webhook-Id") != j.Webhook.ID || m.body != fmt.Sprintf(`{"job": %q, "status": "succeeded"}`, j.ID) {
				t.Errorf("%+v", m)
			}
			return m
		case <-time.After(30 * time.Second):
			t.Fatal("no webhook arrived")
			return message{}
		}
	}
	next()
	status.Store(http.StatusNoContent)
	j = e.until(t, j.ID, b.passTime(func(j *jobs.Job) bool { return j.Webhook.Status == jobs.Delivered })) // 5 s later
	next()
	if j.Webhook.Attempts != 2 || j.Webhook.LastError != "" || j.Webhook.Tried.IsZero() {
		t.Errorf("%+v", j.Webhook)
	}
	// It is delivered again on request. A receiver that is gone ends the tries.
	if _, err := e.RotateSecret(t.Context(), "k", b.clock.Now()); err != nil {
		t.Error(err)
	}
	status.Store(http.StatusGone)
	if _, err := e.Redeliver(t.Context(), "k", j.ID); err != nil {
		t.Fatal(err)
	}
	if m := next(); len(strings.Fields(m.header.Get("Webhook-Signature"))) != 2 {
		t.Errorf("%v", m.header)
	}
	e.until(t, j.ID, func(j *jobs.Job) bool { return j.Webhook.Status == jobs.GivenUp })
	if _, err := e.Redeliver(t.Context(), "k", e.wait(t, e.submit(t, b.work(1)).ID).ID); !errors.Is(err, jobs.ErrNoWebhook) {
		t.Errorf("%v", err)
	}
}

// However often a client asks to redeliver a webhook, one delivery is scheduled.
func testRedeliverOften(t *testing.T, b *bench) {
	var tries atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer server.Close()
	b.post = poster{server.Client()}
	e := b.runEcho()
	j, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: b.work(1), WebhookURL: server.URL}, b.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.wait(t, j.ID)
	for range 20 {
		if j, err = e.Redeliver(t.Context(), "k", j.ID); err != nil || j.Webhook.Status != jobs.Pending {
			t.Fatalf("%+v, %v", j, err)
		}
		if n := e.UnfinishedRiverJobs(t, "webhook"); n != 1 {
			t.Fatalf("%d deliveries are scheduled", n)
		}
	}
	e.until(t, j.ID, func(j *jobs.Job) bool { return j.Webhook.Attempts > 0 })
	if n := e.UnfinishedRiverJobs(t, "webhook"); n != 1 || tries.Load() > 21 {
		t.Errorf("%d deliveries are scheduled after %d tries", n, tries.Load())
	}
}

func testSecrets(t *testing.T, b *bench) {
	e, now := b.open(), b.clock.Now()
	first, err := e.Secrets(t.Context(), "k", now)
	if err != nil || !strings.HasPrefix(first.Current, "whsec_") || first.Previous != "" {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := e.Secrets(t.Context(), "k", now); err != nil || *again != *first {
		t.Errorf("%+v, %v", again, err)
	}
	if other, err := e.Secrets(t.Context(), "l", now); err != nil || other.Current == first.Current {
		t.Errorf("%+v, %v", other, err)
	}
	rotated, err := e.RotateSecret(t.Context(), "k", now)
	if err != nil || rotated.Current == first.Current || rotated.Previous != first.Current || rotated.PreviousUntil.Sub(now).Round(time.Second) != 24*time.Hour {
		t.Errorf("%+v, %v", rotated, err)
	}
	if later, err := e.Secrets(t.Context(), "k", now.Add(25*time.Hour)); err != nil || later.Current != rotated.Current || later.Previous != "" {
		t.Errorf("%+v, %v", later, err)
	}
}

// A job is deleted when it has expired. Its objects become garbage then, and not
// before.
func testExpire(t *testing.T, b *bench) {
	e := b.runEcho()
	j := e.wait(t, e.submit(t, b.work(3)).ID)
	garbage := func(at time.Time) int {
		t.Helper()
		all, err := e.state.TakeGarbage(t.Context(), 100, at)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := garbage(b.clock.Now().Add(2 * time.Hour)); n != 0 {
		t.Errorf("%d objects of a job are garbage", n)
	}
	forget := func(at time.Time, want int64) {
		t.Helper()
		if n, err := e.state.DeleteExpiredJobs(t.Context(), at); err != nil || n != want {
			t.Errorf("%d jobs were deleted, %v, want %d", n, err, want)
		}
	}
	forget(j.Expires.Add(-time.Second), 0)
	forget(j.Expires, 1)
	if _, err := e.Job(t.Context(), "k", j.ID); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if n := garbage(b.clock.Now().Add(2 * time.Hour)); n != 3 {
		t.Errorf("%d objects are garbage", n)
	}
	// A job that has expired is not visible, even before it is deleted.
	j = e.wait(t, e.submit(t, b.work(1)).ID)
	b.clock.Advance(settings.Retention)
	_, jobErr := e.Job(t.Context(), "k", j.ID)
	_, itemErr := e.Item(t.Context(), "k", j.ID, 0)
	_, cancelErr := e.Cancel(t.Context(), "k", j.ID, b.clock.Now())
	for _, err := range []error{jobErr, itemErr, cancelErr} {
		if !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
	if list, err := e.Jobs(t.Context(), "k", nil, "", 100); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	// A job with a pending webhook stays, but not forever.
	pending := e.submitJob(t, jobs.Submission{APIKey: "k", Items: b.work(1), WebhookURL: "https://127.0.0.1:1"})
	pending = e.wait(t, pending.ID)
	forget(pending.Expires.Add(6*24*time.Hour), 1)
	forget(pending.Expires.Add(7*24*time.Hour), 1)
}
