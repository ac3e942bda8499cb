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

// bench makes engines on one database.
type bench struct {
	t    *testing.T
	cfg  store.Config
	post jobs.Poster
}

type engine struct {
	*jobs.Engine
	state *store.Store
	// stop ends Run and waits.
	stop func()
}

var settings = jobs.Config{
	Concurrency: 4, PerKey: 100, Retention: time.Hour, ItemTimeout: 5 * time.Second, Grace: 5 * time.Second,
}

func (b *bench) open() *engine {
	b.t.Helper()
	state, err := store.Open(context.Background(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	e, err := jobs.Open(context.Background(), settings, state, b.post, slog.New(slog.DiscardHandler))
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
	return &engine{e, state, closing}
}

func (b *bench) run(work jobs.Worker) *engine {
	b.t.Helper()
	e := b.open()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- e.Run(ctx, work, func(j *jobs.Job) ([]byte, error) {
			return fmt.Appendf(nil, `{"job": %q, "status": %q}`, j.ID, j.Status), nil
		})
	}()
	closing := e.stop
	var once sync.Once
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

// echo is a Worker whose result is named for the item, in an object that has a
// row.
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

func work(n int) []jobs.Work {
	items := make([]jobs.Work, n)
	for i := range items {
		items[i] = jobs.Work{ID: fmt.Sprint("i", i), Request: fmt.Append(nil, i), Deadline: time.Now().Add(time.Minute)}
	}
	return items
}

func (e *engine) submit(t *testing.T, items []jobs.Work) *jobs.Job {
	t.Helper()
	j, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Kind: "batch", Items: items}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// wait waits for the end of a job.
func (e *engine) wait(t *testing.T, id string) *jobs.Job {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		j, err := e.Job(t.Context(), "k", id)
		if err != nil {
			t.Fatal(err)
		}
		if j.Status.Ended() {
			return j
		}
		if time.Now().After(deadline) {
			t.Fatalf("not done in time: %+v", j)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// expectEvents checks that the events of a job are numbered, that each item has
// ended once, and that the job's own are those of its life.
func (e *engine) expectEvents(t *testing.T, j *jobs.Job, own ...jobs.Status) {
	t.Helper()
	events, err := e.Events(t.Context(), j.ID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []jobs.Status
	ended := map[int]int{}
	for i, ev := range events {
		if ev.Seq != int64(i+1) {
			t.Errorf("event %d has the number %d", i+1, ev.Seq)
		}
		if ev.Item < 0 {
			got = append(got, ev.Status)
		} else {
			ended[ev.Item]++
		}
	}
	if diff := cmp.Diff(own, got); diff != "" {
		t.Error(diff)
	}
	if len(ended) != j.Total || int64(len(events)) != j.Seq {
		t.Errorf("%d of %d items have ended, %d events of %d", len(ended), j.Total, len(events), j.Seq)
	}
	for item, n := range ended {
		if n != 1 {
			t.Errorf("item %d has ended %d times", item, n)
		}
	}
}

func testSucceed(t *testing.T, b *bench) {
	e := b.runEcho()
	j := e.submit(t, work(20))
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
	for _, err := range []error{second(e.Item(t.Context(), "another", j.ID, 0)), second(e.Item(t.Context(), "k", j.ID, 20)), second(e.Cancel(t.Context(), "another", j.ID, time.Now())), e.Delete(t.Context(), "another", j.ID, time.Now())} {
		if !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
	if item, err := e.Item(t.Context(), "k", j.ID, 7); err != nil || item.ID != "i7" {
		t.Errorf("%+v, %v", item, err)
	}
}

func second[T any](_ T, err error) error { return err }

// An error of the client is the item's end; a fault of the service is tried
// again, and not for ever.
func testProblems(t *testing.T, b *bench) {
	var tries [4]atomic.Int64
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		n := tries[w.Index].Add(1)
		switch w.Index {
		case 0:
			return jobs.Result{}, &refersam.Error{Code: refersam.CodeInvalidImage, Message: "broken", Field: "/image"}
		case 1:
			if n == 1 {
				return jobs.Result{}, refersam.Errorf(refersam.CodeUpstream, "once")
			}
		case 2:
			if n == 1 {
				panic("a bug")
			}
		case 3:
			<-ctx.Done()
			return jobs.Result{}, &refersam.Error{Code: refersam.CodeDeadlineExceeded, Message: "late", Err: ctx.Err()}
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	items := work(4)
	items[3].Deadline = time.Now().Add(500 * time.Millisecond)
	j := e.wait(t, e.submit(t, items).ID)
	if j.Status != jobs.Failed || j.Succeeded != 2 || j.Failed != 2 {
		t.Errorf("%+v", j)
	}
	if diff := cmp.Diff(&jobs.Problem{Code: "invalid_image", Message: "broken", Field: "/image"}, j.Items[0].Problem); diff != "" {
		t.Error(diff)
	}
	if p := j.Items[3].Problem; p == nil || p.Code != "deadline_exceeded" {
		t.Errorf("%+v", p)
	}
	if tries[0].Load() != 1 || tries[1].Load() != 2 || tries[2].Load() != 2 {
		t.Errorf("tries: %d %d %d", tries[0].Load(), tries[1].Load(), tries[2].Load())
	}
	e.expectEvents(t, j, jobs.Queued, jobs.Running, jobs.Failed)
}

// A service that has too much to do is asked again.
func testOverload(t *testing.T, b *bench) {
	var tries atomic.Int64
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		if tries.Add(1) <= 2 {
			return jobs.Result{}, refersam.Errorf(refersam.CodeOverloaded, "busy")
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	if j := e.wait(t, e.submit(t, work(1)).ID); j.Status != jobs.Succeeded || tries.Load() != 3 {
		t.Errorf("%d tries: %+v", tries.Load(), j)
	}
}

func testCancel(t *testing.T, b *bench) {
	started, ended := make(chan struct{}, 20), make(chan struct{}, 20)
	e := b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		started <- struct{}{}
		defer func() { ended <- struct{}{} }()
		<-ctx.Done()
		return jobs.Result{}, ctx.Err()
	})
	j := e.submit(t, work(10))
	for range settings.Concurrency {
		<-started
	}
	for range 2 { // to cancel again changes nothing
		got, err := e.Cancel(t.Context(), "k", j.ID, time.Now())
		if err != nil || got.Status != jobs.Cancelled || got.Cancelled != 10 || got.Items[9].Status != jobs.Cancelled {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	for range settings.Concurrency { // long before their time is over
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			t.Fatal("an item goes on")
		}
	}
	e.expectEvents(t, e.wait(t, j.ID), jobs.Queued, jobs.Running, jobs.Cancelled)
	if err := e.Delete(t.Context(), "k", j.ID, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := e.Job(t.Context(), "k", j.ID); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("%v", err)
	}
	select {
	case <-started:
		t.Error("a cancelled item was begun")
	case <-time.After(500 * time.Millisecond):
	}
}

// A job that is submitted again under its ID is the one that is there.
// Who cancels and who ends items of the same job do not wait for each other in a
// circle: nobody fails, and no item is done again.
func testCancelWhileEnding(t *testing.T, b *bench) {
	var tries sync.Map
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		if _, again := tries.LoadOrStore(fmt.Sprint(w.Job, w.Index), true); again {
			t.Errorf("item %d of %s is done again", w.Index, w.Job)
		}
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	for range 10 {
		j := e.submit(t, work(64))
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				for range 5 {
					time.Sleep(rand.N(20 * time.Millisecond))
					if _, err := e.Cancel(context.Background(), "k", j.ID, time.Now()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		e.wait(t, j.ID)
	}
}

func testSubmitAgain(t *testing.T, b *bench) {
	e := b.open()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			j, err := e.Submit(t.Context(), jobs.Submission{ID: "job_1", APIKey: "k", RequestID: "r", Kind: "batch", Items: work(3)}, time.Now())
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
	e.submit(t, work(99))
	_, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: work(2)}, time.Now())
	if refersam.ErrorCode(err) != refersam.CodeQuotaExceeded {
		t.Errorf("%v", err)
	}
	if _, err := e.Submit(t.Context(), jobs.Submission{APIKey: "other", Items: work(2)}, time.Now()); err != nil {
		t.Error(err)
	}
	e.submit(t, work(1))

	var group sync.WaitGroup
	var taken atomic.Int64
	for range 12 {
		group.Go(func() {
			switch _, err := e.Submit(t.Context(), jobs.Submission{APIKey: "busy", Items: work(60)}, time.Now()); {
			case err == nil:
				taken.Add(1)
			case refersam.ErrorCode(err) != refersam.CodeQuotaExceeded:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if taken.Load() != 1 {
		t.Errorf("%d jobs of 60 items were taken at once of a key that may have 100", taken.Load())
	}
}

// Urgent items come before others that have waited longer.
func testUrgent(t *testing.T, b *bench) {
	var mu sync.Mutex
	var order []string
	e := b.open()
	e.submit(t, work(20))
	urgent := work(5)
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
		want = append([]string{e.submit(t, work(1)).ID}, want...)
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
	if _, err := e.Cancel(t.Context(), "k", want[1], time.Now()); err != nil {
		t.Error(err)
	}
	if page, err := e.Jobs(t.Context(), "k", nil, jobs.Cancelled, 9); err != nil || len(page) != 1 || page[0].ID != want[1] {
		t.Errorf("%v, %v", page, err)
	}
	if page, err := e.Jobs(t.Context(), "other", nil, "", 9); err != nil || len(page) != 0 {
		t.Errorf("%v, %v", page, err)
	}
}

// What a process that died was doing is done by the next one at once, and ends
// once.
func testDeath(t *testing.T, b *bench) {
	doing := make(chan struct{}, 100)
	hang := make(chan struct{})
	dead := b.open()
	j := dead.submit(t, work(10))
	// It dies in the middle of everything: River is let go without a word.
	dead.Kill(t, func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		doing <- struct{}{}
		<-hang
		return jobs.Result{}, errors.New("dead")
	}, doing, settings.Concurrency)
	t.Cleanup(func() { close(hang) })
	begun := time.Now()
	e := b.runEcho()
	j = e.wait(t, j.ID)
	if j.Status != jobs.Succeeded || time.Since(begun) > 15*time.Second {
		t.Errorf("after %s: %+v", time.Since(begun), j)
	}
	e.expectEvents(t, j, jobs.Queued, jobs.Running, jobs.Succeeded)
}

// Items under way at the stop are finished, those that are too slow are done
// by the next process.
func testStop(t *testing.T, b *bench) {
	began := make(chan struct{}, 10)
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		began <- struct{}{}
		time.Sleep(300 * time.Millisecond)
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	j := e.submit(t, work(10))
	<-began
	e.stop()
	next := b.open()
	after, err := next.Job(t.Context(), "k", j.ID)
	if err != nil || after.Succeeded == 0 || after.Succeeded == 10 {
		t.Errorf("%+v, %v", after, err)
	}
	for _, item := range after.Items {
		if item.Status == jobs.Running {
			t.Errorf("item %d was left", item.Index)
		}
	}
	next.stop()
	last := b.runEcho()
	last.expectEvents(t, last.wait(t, j.ID), jobs.Queued, jobs.Running, jobs.Succeeded)
}

// An item that is done twice at the same time ends once.
func testTwice(t *testing.T, b *bench) {
	var e *engine
	e = b.run(func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
		e.Duplicate(ctx, t, w)
		time.Sleep(100 * time.Millisecond)
		return echo(func() *store.Store { return e.state })(ctx, w)
	})
	j := e.wait(t, e.submit(t, work(1)).ID)
	time.Sleep(500 * time.Millisecond) // until the others have ended, too
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

// The end of a job is told under one id until somebody has heard it, signed
// with what its key was told.
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
	secrets, err := e.Secrets(t.Context(), "k", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := standardwebhooks.NewWebhook(secrets.Current)
	if err != nil {
		t.Fatal(err)
	}
	j, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: work(2), WebhookURL: server.URL + "/hook"}, time.Now())
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
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was told")
			return message{}
		}
	}
	next()
	status.Store(http.StatusNoContent)
	next() // again, 5 s later
	deadline := time.Now().Add(5 * time.Second)
	for {
		if j, err = e.Job(t.Context(), "k", j.ID); err != nil {
			t.Fatal(err)
		}
		if j.Webhook.Status == jobs.Delivered {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", j.Webhook)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if j.Webhook.Attempts != 2 || j.Webhook.LastError != "" || j.Webhook.Tried.IsZero() {
		t.Errorf("%+v", j.Webhook)
	}
	// It is told again on request; whoever is gone for good is not asked again.
	if _, err := e.RotateSecret(t.Context(), "k", time.Now()); err != nil {
		t.Error(err)
	}
	status.Store(http.StatusGone)
	if _, err := e.Redeliver(t.Context(), "k", j.ID); err != nil {
		t.Fatal(err)
	}
	if m := next(); len(strings.Fields(m.header.Get("Webhook-Signature"))) != 2 {
		t.Errorf("%v", m.header)
	}
	deadline = time.Now().Add(5 * time.Second)
	for j.Webhook.Status != jobs.GivenUp {
		if j, err = e.Job(t.Context(), "k", j.ID); err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", j.Webhook, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := e.Redeliver(t.Context(), "k", e.wait(t, e.submit(t, work(1)).ID).ID); !errors.Is(err, jobs.ErrNoWebhook) {
		t.Errorf("%v", err)
	}
}

// However often a webhook is to be told again, one try is outstanding.
func testRedeliverOften(t *testing.T, b *bench) {
	var tries atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer server.Close()
	b.post = poster{server.Client()}
	e := b.runEcho()
	j, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: work(1), WebhookURL: server.URL}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.wait(t, j.ID)
	for range 20 {
		if j, err = e.Redeliver(t.Context(), "k", j.ID); err != nil || j.Webhook.Status != jobs.Pending {
			t.Fatalf("%+v, %v", j, err)
		}
		if n := e.Outstanding(t); n != 1 {
			t.Fatalf("%d tries are outstanding", n)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for j.Webhook.Attempts == 0 {
		if time.Now().After(deadline) {
			t.Fatal("it is not told")
		}
		time.Sleep(10 * time.Millisecond)
		if j, err = e.Job(t.Context(), "k", j.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.Outstanding(t); n != 1 || tries.Load() > 21 {
		t.Errorf("%d tries are outstanding after %d", n, tries.Load())
	}
}

func testSecrets(t *testing.T, b *bench) {
	e, now := b.open(), time.Now()
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

// A job is forgotten when its time is over; its objects are garbage then, and
// not before.
func testExpire(t *testing.T, b *bench) {
	e := b.runEcho()
	j := e.wait(t, e.submit(t, work(3)).ID)
	garbage := func(at time.Time) int {
		t.Helper()
		all, err := e.state.TakeGarbage(t.Context(), 100, at)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := garbage(time.Now().Add(2 * time.Hour)); n != 0 {
		t.Errorf("%d objects of a job are garbage", n)
	}
	forget := func(at time.Time, want int64) {
		t.Helper()
		if n, err := e.state.DeleteExpiredJobs(t.Context(), at); err != nil || n != want {
			t.Errorf("%d jobs are forgotten, %v, want %d", n, err, want)
		}
	}
	forget(j.Expires.Add(-time.Second), 0)
	forget(j.Expires, 1)
	if _, err := e.Job(t.Context(), "k", j.ID); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if n := garbage(time.Now().Add(2 * time.Hour)); n != 3 {
		t.Errorf("%d objects are garbage", n)
	}
	// What has expired is gone for its key before it is deleted.
	j = e.wait(t, e.submit(t, work(1)).ID)
	if _, err := e.state.Writer().ExecContext(t.Context(), `UPDATE jobs SET expires_us = 1 WHERE id = $1`, j.ID); err != nil {
		t.Fatal(err)
	}
	_, jobErr := e.Job(t.Context(), "k", j.ID)
	_, itemErr := e.Item(t.Context(), "k", j.ID, 0)
	_, cancelErr := e.Cancel(t.Context(), "k", j.ID, time.Now())
	for _, err := range []error{jobErr, itemErr, cancelErr} {
		if !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
	if list, err := e.Jobs(t.Context(), "k", nil, "", 100); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	// As long as its end is to be told it stays, but not for ever.
	told, err := e.Submit(t.Context(), jobs.Submission{APIKey: "k", Items: work(1), WebhookURL: "https://127.0.0.1:1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	told = e.wait(t, told.ID)
	forget(told.Expires.Add(6*24*time.Hour), 1)
	forget(told.Expires.Add(7*24*time.Hour), 1)
}
