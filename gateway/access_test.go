package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
	"github.com/refersam/refersam/tests/await"
)

// authenticated makes the service require keys.
func authenticated(cfg *gateway.Config) { cfg.Auth = gateway.AuthOn }

// newKey makes a key. Without scopes it has the scope for masks.
func (s *service) newKey(t testing.TB, k store.Key) store.Token {
	t.Helper()
	if k.Scopes == nil {
		k.Scopes = []store.Scope{store.ScopeSegment}
	}
	token, err := s.state.CreateKey(context.Background(), k, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearer(req *http.Request, token store.Token) *http.Request {
	return with(req, "Authorization", "Bearer "+token.Reveal())
}

func segment() *http.Request { return form(part{"image", picture}, part{"phrase", "red"}) }

// Every route, with every kind of key.
func TestAccess(t *testing.T) {
	s := start(t, authenticated)
	now := time.Now()
	right := s.newKey(t, store.Key{Name: "right"})
	admin := s.newKey(t, store.Key{Name: "admin", Scopes: []store.Scope{store.ScopeAdmin}})
	expired := s.newKey(t, store.Key{Name: "expired", Expires: now.Add(-time.Minute)})
	revoked := s.newKey(t, store.Key{Name: "revoked"})
	if err := s.state.RevokeKey(t.Context(), revoked.ID, now); err != nil {
		t.Fatal(err)
	}
	mixed := store.Token{ID: right.ID, Secret: admin.Secret}
	nobody := store.Token{ID: strings.Repeat("a", 16), Secret: right.Secret}

	const header, apiKey = "Authorization", "X-API-Key"
	clients := []struct {
		name, header, value string
		segment, usage      int    // for a route for masks, and for usage
		code, challenge     string // of refused requests
	}{
		{"no key", "", "", 401, 401, "unauthorized", `Bearer realm="refersam"`},
		{"right", header, "Bearer " + right.Reveal(), 200, 200, "", ""},
		{"lower case", header, "bearer " + right.Reveal(), 200, 200, "", ""},
		{"X-API-Key", apiKey, right.Reveal(), 200, 200, "", ""},
		{"Basic", header, "Basic dTpw", 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_request"`},
		{"no scheme", header, right.Reveal(), 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_request"`},
		{"cut off", header, "Bearer " + right.Reveal()[:40], 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_token"`},
		{"another's secret", header, "Bearer " + mixed.Reveal(), 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_token"`},
		{"nobody's", header, "Bearer " + nobody.Reveal(), 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_token"`},
		{"expired", apiKey, expired.Reveal(), 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_token"`},
		{"revoked", apiKey, revoked.Reveal(), 401, 401, "unauthorized", `Bearer realm="refersam", error="invalid_token"`},
		{"another scope", apiKey, admin.Reveal(), 403, 200, "forbidden", `Bearer realm="refersam", error="insufficient_scope", scope="segment"`},
	}
	get := func(path string) func() *http.Request {
		return func() *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }
	}
	for _, client := range clients {
		for _, route := range []struct {
			name    string
			request func() *http.Request
			want    int
		}{
			{"segment", segment, client.segment},
			{"models", get("/v1/models"), client.segment},
			{"usage", get("/v1/usage"), client.usage},
			{"livez", get("/livez"), 200},
			{"readyz", get("/readyz"), 200},
			{"version", get("/version"), 200},
			{"problems", get("/problems/forbidden"), 200},
			{"page", get("/"), 200},
		} {
			t.Run(client.name+"/"+route.name, func(t *testing.T) {
				req := route.request()
				if client.header != "" {
					req.Header.Set(client.header, client.value)
				}
				w := s.do(req)
				if w.Code != route.want {
					t.Fatalf("status %d, want %d: %s", w.Code, route.want, w.Body)
				}
				if w.Code < 400 {
					return
				}
				expectProblem(t, w, route.want, client.code, "")
				if got := w.Header().Get("WWW-Authenticate"); got != client.challenge {
					t.Errorf("WWW-Authenticate %s, want %s", got, client.challenge)
				}
			})
		}
	}
	for _, token := range []store.Token{right, admin, expired, revoked} {
		if strings.Contains(s.log.String(), token.Secret) {
			t.Error("a secret is in the log")
		}
	}
	if !strings.Contains(s.log.String(), `"key":"`+right.ID+`"`) {
		t.Error("the log does not name the key")
	}
}

// The error says why a key is not valid only if the key's secret is right.
func TestAccess_Reasons(t *testing.T) {
	s := start(t, authenticated)
	other := s.newKey(t, store.Key{Name: "other"})
	gone := s.newKey(t, store.Key{Name: "gone", Expires: time.Now().Add(-time.Hour)})
	if w := s.do(bearer(segment(), gone)); !strings.Contains(w.Body.String(), "expired on ") {
		t.Errorf("%s", w.Body)
	}
	twice := bearer(segment(), other)
	twice.Header.Add("Authorization", "Bearer rsk_other")
	expectProblem(t, s.do(twice), http.StatusUnauthorized, "unauthorized", "")
	gone.Secret = other.Secret
	if w := s.do(bearer(segment(), gone)); strings.Contains(w.Body.String(), "expired") {
		t.Errorf("%s", w.Body)
	}
}

// A revoked key, and the old secret of a key that was rotated without an overlap,
// are refused 2 s later by a gateway that has them in its cache.
func TestAccess_Revoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, authenticated)
		revoked, rotated, overlapping := s.newKey(t, store.Key{}), s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
		for _, token := range []store.Token{revoked, rotated, overlapping} {
			decode(t, s.do(bearer(segment(), token)))
		}
		now := time.Now()
		if err := s.state.RevokeKey(t.Context(), revoked.ID, now); err != nil {
			t.Fatal(err)
		}
		fresh, err := s.state.RotateKey(t.Context(), rotated.ID, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.state.RotateKey(t.Context(), overlapping.ID, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Second + 50*time.Millisecond)
		expectProblem(t, s.do(bearer(segment(), revoked)), 401, "unauthorized", "")
		expectProblem(t, s.do(bearer(segment(), rotated)), 401, "unauthorized", "")
		decode(t, s.do(bearer(segment(), fresh)))
		decode(t, s.do(bearer(segment(), overlapping)))
	})
}

// away is a database that cannot be queried for keys.
type away struct{ *store.Store }

func (away) Key(context.Context, string) (*store.Key, error) {
	return nil, errors.New("sql: database is closed")
}

// Without a database no request is accepted, and the error does not blame the
// client.
func TestAccess_DatabaseAway(t *testing.T) {
	s := start(t)
	w := httptest.NewRecorder()
	s.withState(t, away{s.state}).ServeHTTP(w, bearer(segment(), s.newKey(t, store.Key{})))
	expectProblem(t, w, http.StatusServiceUnavailable, "upstream_unavailable", "")
	if strings.Contains(w.Body.String(), "sql") {
		t.Errorf("the cause is shown: %s", w.Body)
	}
}

// withState is another gateway of the service. It requires keys and uses the test's
// state.
func (s *service) withState(t *testing.T, state gatewaytest.State) *gatewaytest.Service {
	t.Helper()
	cfg := gateway.DefaultConfig()
	cfg.Auth = gateway.AuthOn
	gw := gatewaytest.Start(t, cfg, gatewaytest.Parts{Model: s.segmenter, MaxImage: maxImage, State: state, Blobs: s.blobs, Jobs: s.engine, Fetcher: s.fetcher, Log: discard})
	return gw
}

func TestAuthenticates(t *testing.T) {
	for _, tc := range []struct {
		auth, listen string
		want         bool
	}{
		{"auto", "127.0.0.1:8080", false},
		{"auto", "127.8.9.1:8080", false},
		{"auto", "[::1]:8080", false},
		{"auto", "localhost:8080", false},
		{"auto", "0.0.0.0:8080", true},
		{"auto", ":8080", true},
		{"auto", "10.0.0.1:8080", true},
		{"auto", "gateway.example:8080", true},
		{"auto", "localhost.example:8080", true},
		{"on", "127.0.0.1:8080", true},
		{"off", "0.0.0.0:8080", false},
	} {
		cfg := gateway.DefaultConfig()
		cfg.Auth, cfg.Listen = tc.auth, tc.listen
		if got := cfg.Authenticates(); got != tc.want {
			t.Errorf("%s on %s: %t", tc.auth, tc.listen, got)
		}
	}
}

func TestCheckAccess(t *testing.T) {
	s := start(t, authenticated)
	expect := func(ok bool) {
		t.Helper()
		err := s.CheckAccess(t.Context())
		if ok && err != nil || !ok && (err == nil || !strings.Contains(err.Error(), "refersam keys create") || !strings.Contains(err.Error(), "REFERSAM_AUTH=off")) {
			t.Errorf("%v", err)
		}
	}
	expect(false)
	s.newKey(t, store.Key{Expires: time.Now().Add(-time.Second)})
	expect(false)
	for listen, advice := range map[string]string{"0.0.0.0:8080": "listen on 127.0.0.1", "127.0.0.1:8080": "REFERSAM_AUTH=auto"} {
		elsewhere := start(t, func(cfg *gateway.Config) { cfg.Auth, cfg.Listen = gateway.AuthOn, listen })
		if err := elsewhere.CheckAccess(t.Context()); err == nil || !strings.Contains(err.Error(), advice) {
			t.Errorf("%s: %v", listen, err)
		}
	}
	s.newKey(t, store.Key{})
	expect(true)
}

func TestRate(t *testing.T) {
	s := start(t, authenticated)
	token := s.newKey(t, store.Key{Rate: store.Rate{Requests: 3, Window: time.Hour}})
	for _, left := range []int{2, 1, 0} {
		w := s.do(bearer(segment(), token))
		decode(t, w)
		if got := w.Header().Get("RateLimit"); !strings.HasPrefix(got, fmt.Sprintf(`"requests";r=%d;t=`, left)) {
			t.Errorf("RateLimit %s, want %d left", got, left)
		}
		if got := w.Header().Get("RateLimit-Policy"); got != `"requests";q=3;w=3600` {
			t.Errorf("RateLimit-Policy %s", got)
		}
	}
	w := s.do(bearer(segment(), token))
	expectProblem(t, w, http.StatusTooManyRequests, "quota_exceeded", "")
	if got := w.Header().Get("Retry-After"); got != "1200" {
		t.Errorf("Retry-After %s, want the 1200 s that one request takes", got)
	}
	if got := w.Header().Get("RateLimit"); !strings.HasPrefix(got, `"requests";r=0;t=`) {
		t.Errorf("RateLimit %s", got)
	}
	expectProblem(t, s.do(bearer(httptest.NewRequest(http.MethodGet, "/v1/models", nil), token)), http.StatusTooManyRequests, "quota_exceeded", "")
	decode(t, s.do(bearer(segment(), s.newKey(t, store.Key{})))) // another key
}

// A bucket fills evenly.
func TestRate_Fills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, authenticated)
		token := s.newKey(t, store.Key{Rate: store.Rate{Requests: 10, Window: time.Second}})
		begun := time.Now()
		var let int
		for time.Since(begun) < time.Second {
			if s.do(bearer(httptest.NewRequest(http.MethodGet, "/v1/models", nil), token)).Code == http.StatusOK {
				let++
			}
			time.Sleep(5 * time.Millisecond)
		}
		// A full bucket of 10, and one more each 100 ms.
		if let != 19 && let != 20 {
			t.Errorf("%d in a second, want 19 or 20", let)
		}
	})
}

// held makes the model wait. It returns a function that releases the model and a
// function that counts the waiting batches.
func held(model *pipelinetest.ColourModel) (release func(), waiting func() int) {
	var mu sync.Mutex
	n, free := 0, make(chan struct{})
	model.SetBefore(func(ctx context.Context) error {
		mu.Lock()
		n++
		mu.Unlock()
		select {
		case <-free:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return func() { close(free) }, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestConcurrency(t *testing.T) {
	s := start(t, authenticated)
	token, other := s.newKey(t, store.Key{Concurrency: 1}), s.newKey(t, store.Key{})
	release, waiting := held(s.model)
	first := make(chan *httptest.ResponseRecorder, 1)
	go func() { first <- s.do(bearer(form(part{"image", picture}, part{"phrase", "red"}), token)) }()
	await.True(t, 10*time.Second, "no batch", func() bool { return waiting() == 1 })
	w := s.do(bearer(segment(), token))
	expectProblem(t, w, http.StatusTooManyRequests, "quota_exceeded", "")
	if w.Header().Get("Retry-After") != "1" || w.Header().Get("RateLimit-Policy") != `"concurrency";q=1;qu="concurrent-requests"` {
		t.Errorf("headers %v", w.Header())
	}
	release()
	decode(t, <-first)
	decode(t, s.do(bearer(segment(), token)))
	decode(t, s.do(bearer(segment(), other)))
}

// Several gateways enforce the limits of keys together.
func TestShared(t *testing.T) {
	t.Parallel()
	cluster := storetest.NewCluster(t)
	address := cluster.NewDatabase(t)
	var gateways []*service
	for range 3 {
		s := before(t, openState(t, store.Config{DatabaseURL: address}), pipelinetest.NewColourModel("bert"), authenticated)
		s.waitReady(t)
		gateways = append(gateways, s)
	}
	models := func() *http.Request { return httptest.NewRequest(http.MethodGet, "/v1/models", nil) }

	t.Run("Rate", func(t *testing.T) {
		// 100,000 per day: in 100 ms less than one is added, so the gateway borrows
		// one at a time.
		token := gateways[0].newKey(t, store.Key{Rate: store.Rate{Requests: 20, Window: 24 * time.Hour}})
		let := 0
		for i := range 60 {
			if gateways[i%3].do(bearer(models(), token)).Code == http.StatusOK {
				let++
			}
		}
		if let != 20 {
			t.Errorf("%d let in, want 20", let)
		}
	})
	t.Run("Batches", func(t *testing.T) {
		// 500/s: the gateway borrows 50 at a time.
		token := gateways[0].newKey(t, store.Key{Rate: store.Rate{Requests: 500, Window: time.Second}})
		var group sync.WaitGroup
		let := make([]int, 3)
		begun := time.Now()
		for g, s := range gateways {
			group.Go(func() {
				for time.Since(begun) < 2*time.Second {
					if s.do(bearer(models(), token)).Code == http.StatusOK {
						let[g]++
					}
				}
			})
		}
		group.Wait()
		sum := let[0] + let[1] + let[2]
		most := 500 + int(500*time.Since(begun).Seconds())
		if sum > most || sum < most*8/10 {
			t.Errorf("%v let in, want up to %d together", let, most)
		}
	})
	t.Run("Concurrency", func(t *testing.T) {
		// One at a time, although each request reaches another gateway.
		one := gateways[0].newKey(t, store.Key{Concurrency: 1})
		for i := range 9 {
			decode(t, gateways[i%3].do(bearer(segment(), one)))
		}

		token := gateways[0].newKey(t, store.Key{Concurrency: 2})
		answers := make(chan *httptest.ResponseRecorder, 2)
		var releases []func()
		for _, s := range gateways[:2] {
			release, waiting := held(s.model)
			releases = append(releases, release)
			go func() { answers <- s.do(bearer(form(part{"image", picture}, part{"phrase", "green"}), token)) }()
			await.True(t, 10*time.Second, "no batch", func() bool { return waiting() == 1 })
		}
		for _, s := range gateways {
			s.Access.Renew(t.Context())
			expectProblem(t, s.do(bearer(segment(), token)), http.StatusTooManyRequests, "quota_exceeded", "")
		}
		for _, release := range releases {
			release()
			decode(t, <-answers)
		}
		// A refused gateway asks the database again only after a moment.
		await.Until(t, 10*time.Second, func() error {
			if w := gateways[2].do(bearer(segment(), token)); w.Code != http.StatusOK {
				return fmt.Errorf("status %d: %s", w.Code, w.Body)
			}
			return nil
		})
	})
	t.Run("Usage", func(t *testing.T) {
		token := gateways[0].newKey(t, store.Key{})
		for range 2 {
			for _, s := range gateways {
				decode(t, s.do(bearer(segment(), token)))
				if err := s.Access.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if used := usage(t, gateways[1].do(bearer(httptest.NewRequest(http.MethodGet, "/v1/usage", nil), token))); len(used) != 1 || used[0].Requests != 6 {
			t.Errorf("%+v, want 6 requests", used)
		}
	})
}

// recording is a Segmenter that records its requests.
type recording struct {
	experiment.Inner
	options pipeline.Options
}

func (r *recording) Prepare(_ *refersam.Request, options pipeline.Options) (*pipeline.Prepared, error) {
	r.options = options
	return nil, refersam.Errorf(refersam.CodeNotReady, "No.")
}

// With keys, keys share the model evenly; without keys, addresses do.
func TestSharer(t *testing.T) {
	s := start(t)
	for _, auth := range []string{gateway.AuthOn, gateway.AuthOff} {
		cfg := gateway.DefaultConfig()
		cfg.Auth = auth
		asked := &recording{Inner: s.segmenter}
		gw := gatewaytest.Start(t, cfg, gatewaytest.Parts{Model: asked, MaxImage: maxImage, State: s.state, Blobs: openBlobs(t), Log: discard})
		token := s.newKey(t, store.Key{})
		req := bearer(segment(), token)
		req.RemoteAddr = "192.0.2.7:1234"
		gw.ServeHTTP(httptest.NewRecorder(), req)
		want := token.ID
		if auth == gateway.AuthOff {
			want = "192.0.2.7"
		}
		if asked.options.Key != want {
			t.Errorf("%s: %s, want %s", auth, asked.options.Key, want)
		}
	}
}

// A service without keys, for this machine only, accepts neither pages of other
// sites nor a proxy's clients.
func TestNear(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) {
		cfg.Auth, cfg.CORSOrigins = gateway.AuthAuto, []string{"https://app.example"}
	})
	for _, tc := range []struct {
		host, site, origin string
		status             int
	}{
		{"127.0.0.1:8080", "", "", 200},
		{"127.0.0.1:8080", "", "http://127.0.0.1:8080", 200},
		{"127.0.0.1:8080", "", "https://app.example", 200},
		{"127.0.0.1:8080", "", "https://evil.example", 403},
		{"127.0.0.1:8080", "", "http://127.0.0.1:3000", 403},
		{"127.0.0.1:8080", "", "http://127.0.0.1", 403},
		{"127.0.0.1:8080", "", "null", 403},
		{"127.0.0.1:8080", "same-site", "http://127.0.0.1:3000", 403},
		{"127.0.0.1:8080", "same-site", "https://app.example", 200},
		{"127.0.0.1:8080", "nonsense", "", 403},
		{"localhost", "same-origin", "", 200},
		{"LocalHost.:8080", "", "", 200},
		{"[::1]:8080", "none", "", 200},
		{"localhost:8080", "cross-site", "https://app.example", 200},
		{"localhost:8080", "cross-site", "https://evil.example", 403},
		{"localhost:8080", "cross-site", "", 403},
		{"rebound.example", "same-origin", "", 403},
		{"192.0.2.1:8080", "", "", 403},
	} {
		for path, method := range map[string]string{"/v1/images": http.MethodGet, "/v1/webhooks/secret/rotate": http.MethodPost} {
			req := httptest.NewRequest(method, path, nil)
			req.Host = tc.host
			if tc.site != "" {
				req.Header.Set("Sec-Fetch-Site", tc.site)
			}
			if tc.origin != "" {
				req.Header.Set("Origin", tc.origin)
			}
			w := s.do(req)
			if w.Code != tc.status {
				t.Errorf("%+v %s: status %d: %s", tc, path, w.Code, w.Body)
			}
			if w.Code == http.StatusForbidden && !strings.Contains(w.Body.String(), "REFERSAM_") {
				t.Errorf("not what to do: %s", w.Body)
			}
		}
	}
}

// silent is a database that does not answer for some keys.
type silent struct {
	*store.Store
	about map[string]bool
}

func (s *silent) MultiGateway() bool { return true }

func (s *silent) TakeTokens(ctx context.Context, key string, rate store.Rate, want int64, now time.Time) (store.Tokens, error) {
	if s.about[key] {
		<-ctx.Done()
		return store.Tokens{}, ctx.Err()
	}
	return s.Store.TakeTokens(ctx, key, rate, want, now)
}

func (s *silent) LeaseSlots(ctx context.Context, key, gateway string, limit, want int64, until, now time.Time) (int64, error) {
	if s.about[key] {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.Store.LeaseSlots(ctx, key, gateway, limit, want, until, now)
}

// A database that does not answer counts as unavailable after a short time, and
// only for the keys concerned.
func TestDatabaseSilent(t *testing.T) {
	s := start(t)
	state := &silent{Store: s.state, about: make(map[string]bool)}
	gw := s.withState(t, state)
	rated := s.newKey(t, store.Key{Rate: store.Rate{Requests: 100, Window: time.Second}})
	counted := s.newKey(t, store.Key{Concurrency: 2})
	fine := s.newKey(t, store.Key{Rate: store.Rate{Requests: 100, Window: time.Second}, Concurrency: 2})
	state.about[rated.ID], state.about[counted.ID] = true, true
	var group sync.WaitGroup
	begun := time.Now()
	for range 5 {
		for _, key := range []store.Token{rated, counted} {
			group.Go(func() {
				w := httptest.NewRecorder()
				gw.ServeHTTP(w, bearer(segment(), key))
				expectProblem(t, w, http.StatusServiceUnavailable, "upstream_unavailable", "")
			})
		}
	}
	time.Sleep(100 * time.Millisecond) // the requests hold their locks by now, where synctest sees no waiting
	renewal, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	group.Go(func() { gw.Access.Renew(renewal) })
	time.Sleep(100 * time.Millisecond) // the renewal asks by now
	w := httptest.NewRecorder()
	gw.ServeHTTP(w, bearer(segment(), fine))
	decode(t, w)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("another key waited %s", took)
	}
	group.Wait()
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}
