package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/store"
)

func usage(t *testing.T, w *httptest.ResponseRecorder) []api.UsageDay {
	t.Helper()
	var answer api.Usage
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	return answer.Usage
}

func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, authenticated)
		a, b := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
		admin := s.newKey(t, store.Key{Scopes: []store.Scope{store.ScopeAdmin}})
		s.model.SetBefore(func(context.Context) error { time.Sleep(20 * time.Millisecond); return nil })
		decode(t, s.do(bearer(form(part{"image", picture}, part{"phrase", "red"}, part{"phrase", "green"}), a)))
		s.model.SetBefore(nil)
		decode(t, s.do(bearer(segment(), a))) // cached by now, so it takes no time of the model
		decode(t, s.do(bearer(segment(), b)))
		expectProblem(t, s.do(bearer(form(part{"image", "none"}, part{"phrase", "red"}), a)), 415, "unsupported_media_type", "image")

		get := func(token store.Token, query string) *httptest.ResponseRecorder {
			return s.do(bearer(httptest.NewRequest(http.MethodGet, "/v1/usage"+query, nil), token))
		}
		own := usage(t, get(a, ""))
		if len(own) != 1 || own[0].Key != a.ID || own[0].Requests != 2 || own[0].Pictures != 2 || own[0].Day != time.Now().UTC().Format(time.DateOnly) {
			t.Errorf("%+v", own)
		}
		if own[0].GPUMS != 20 {
			t.Errorf("%v ms of the model, want 20", own[0].GPUMS)
		}
		if all := usage(t, get(admin, "")); len(all) != 2 {
			t.Errorf("%+v", all)
		}
		if one := usage(t, get(admin, "?key="+b.ID)); len(one) != 1 || one[0].Key != b.ID {
			t.Errorf("%+v", one)
		}
		if one := usage(t, get(a, "?key="+a.ID)); len(one) != 1 {
			t.Errorf("%+v", one)
		}
		if none := usage(t, get(a, "?from=2020-01-01&to=2020-12-31")); none == nil || len(none) != 0 {
			t.Errorf("%+v, want an empty list", none)
		}
		expectProblem(t, get(a, "?key="+b.ID), http.StatusForbidden, "forbidden", "")
		for query, field := range map[string]string{
			"?from=yesterday": "from", "?to=2026-13-01": "to", "?from=2026-02-02&to=2026-02-01": "from", "?from=2020-01-01": "from",
			"?month=1": "month", "?to=2026-01-01&to=2026-01-02": "to",
		} {
			expectProblem(t, get(a, query), http.StatusUnprocessableEntity, "invalid_request", field)
		}
	})
}

// Without authentication all clients' usage is counted together.
func TestUsage_Anonymous(t *testing.T) {
	s := start(t)
	decode(t, s.do(segment()))
	if all := usage(t, s.get("/v1/usage")); len(all) != 1 || all[0].Key != "anonymous" || all[0].Requests != 1 {
		t.Errorf("%+v", all)
	}
}

// faulty is a database that fails sometimes, before or after it has done its work.
type faulty struct {
	*store.Store
	calls int
}

func (f *faulty) AddUsage(ctx context.Context, gateway string, seq int64, batch map[store.KeyDay]store.Use, now time.Time) error {
	f.calls++
	var err error
	if f.calls%3 != 1 {
		err = f.Store.AddUsage(ctx, gateway, seq, batch, now)
	}
	if f.calls%3 != 0 {
		return errors.Join(err, errors.New("the connection is lost"))
	}
	return err
}

// If a write fails in any way, no usage is lost or counted twice.
func TestUsage_Faults(t *testing.T) {
	s := start(t)
	state := &faulty{Store: s.state}
	gw := gatewaytest.Start(t, withoutKeys(), gatewaytest.Parts{Model: s.segmenter, MaxImage: maxImage, State: state, Blobs: openBlobs(t), Log: discard})
	for range 10 {
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, segment())
		decode(t, w)
		_ = gw.Access.Flush(t.Context())
	}
	for range 3 {
		_ = gw.Access.Flush(t.Context())
	}
	if err := gw.Access.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := usage(t, s.get("/v1/usage")); len(all) != 1 || all[0].Requests != 10 {
		t.Errorf("%+v, want 10 requests", all)
	}
}

// A gateway that was stopped has written all counted usage, including work such as
// jobs that ended after it had stopped listening.
func TestUsage_Stop(t *testing.T) {
	s := start(t)
	ctx, stop := context.WithCancel(t.Context())
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, ln) }()
	decode(t, s.do(segment()))
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	decode(t, s.do(segment()))
	if err := s.Access.Close(); err != nil {
		t.Fatal(err)
	}
	today := time.Now().UTC().Format(time.DateOnly)
	if all, err := s.state.Usage(t.Context(), "", "", "9"); err != nil || len(all) != 1 || all[0].Requests != 2 || all[0].Day != today {
		t.Errorf("%+v: %v", all, err)
	}
}
