package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
)

// orders is a route that stores something: it counts its requests.
type orders struct {
	n      int
	during func(c *gin.Context) error // may be nil
}

func (o *orders) post(c *gin.Context) error {
	if o.during != nil {
		if err := o.during(c); err != nil {
			return err
		}
	}
	body, err := io.ReadAll(c.Request.Body)
	if err != nil {
		return err
	}
	o.n++
	c.Header("Location", fmt.Sprintf("/v1/orders/%d", o.n))
	c.Header("X-Other", "not kept")
	c.Data(http.StatusCreated, "text/plain", fmt.Appendf(nil, "order %d of %d bytes", o.n, len(body)))
	return nil
}

func order(key, body string) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "/v1/orders", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return req
}

func withOrders(t *testing.T, change ...func(*gateway.Config)) (*service, *orders) {
	s, o := start(t, change...), &orders{}
	s.HandleOnce("/v1/orders", o.post)
	return s, o
}

func expectOrder(t *testing.T, w *httptest.ResponseRecorder, n int, replayed bool) {
	t.Helper()
	if w.Code != http.StatusCreated || !strings.HasPrefix(w.Body.String(), fmt.Sprintf("order %d of ", n)) {
		t.Errorf("status %d, want order %d: %s", w.Code, n, w.Body)
	}
	want := []string{"text/plain", fmt.Sprintf("/v1/orders/%d", n), "not kept", ""}
	if replayed {
		want[2], want[3] = "", "true"
	}
	h := w.Header()
	if diff := cmp.Diff(want, []string{h.Get("Content-Type"), h.Get("Location"), h.Get("X-Other"), h.Get("Idempotency-Replayed")}); diff != "" {
		t.Errorf("headers: %s", diff)
	}
	if h.Get("X-Request-Id") == "" {
		t.Error("no id")
	}
}

func TestIdempotency(t *testing.T) {
	s, o := withOrders(t)
	expectOrder(t, s.do(order("a", `{"n":1}`)), 1, false)
	expectOrder(t, s.do(order("a", `{"n":1}`)), 1, true)
	expectOrder(t, s.do(order(`"a"`, `{"n":1}`)), 1, true) // as in the draft of the header
	expectOrder(t, s.do(order("b", `{"n":1}`)), 2, false)
	expectOrder(t, s.do(order("", `{"n":1}`)), 3, false)
	expectOrder(t, s.do(order("", `{"n":1}`)), 4, false)
	expectProblem(t, s.do(order("a", `{"n":2}`)), http.StatusUnprocessableEntity, "idempotency_key_reused", "")
	other := order("a", `{"n":1}`)
	other.URL.RawQuery = "now=1"
	expectProblem(t, s.do(other), http.StatusUnprocessableEntity, "idempotency_key_reused", "")
	for _, key := range []string{" ", strings.Repeat("a", 256), "ü", `"`, `a"b`} {
		req := order("x", "")
		req.Header["Idempotency-Key"] = []string{key}
		expectProblem(t, s.do(req), http.StatusUnprocessableEntity, "invalid_request", "Idempotency-Key")
	}
	twice := order("a", "")
	twice.Header.Add("Idempotency-Key", "b")
	expectProblem(t, s.do(twice), http.StatusUnprocessableEntity, "invalid_request", "Idempotency-Key")
	empty := order("a", "")
	empty.Header["Idempotency-Key"] = []string{""}
	expectProblem(t, s.do(empty), http.StatusUnprocessableEntity, "invalid_request", "Idempotency-Key")
	if o.n != 4 {
		t.Errorf("%d orders, want 4", o.n)
	}
}

// A form that is sent again has another boundary but is the same request.
func TestIdempotency_Form(t *testing.T) {
	s, _ := withOrders(t)
	send := func(parts ...part) *httptest.ResponseRecorder {
		req := form(parts...)
		req.URL.Path = "/v1/orders"
		return s.do(with(req, "Idempotency-Key", "a"))
	}
	expectOrder(t, send(part{"image", picture}, part{"phrase", "red"}), 1, false)
	expectOrder(t, send(part{"image", picture}, part{"phrase", "red"}), 1, true)
	for _, parts := range [][]part{
		{{"image", picture}, {"phrase", "green"}},
		{{"image", picture}},
		{{"phrase", "red"}, {"image", picture}},
		{{"image", picture + "p"}, {"hrase", "red"}},
	} {
		expectProblem(t, send(parts...), http.StatusUnprocessableEntity, "idempotency_key_reused", "")
	}
}

// Equal idempotency keys of different clients are independent.
func TestIdempotency_Clients(t *testing.T) {
	s, _ := withOrders(t, authenticated)
	a, b := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
	expectOrder(t, s.do(bearer(order("1", "a"), a)), 1, false)
	expectOrder(t, s.do(bearer(order("1", "b"), b)), 2, false)
	expectOrder(t, s.do(bearer(order("1", "a"), a)), 1, true)
	expectProblem(t, s.do(order("1", "a")), http.StatusUnauthorized, "unauthorized", "")
}

// While the first request runs, repeated requests get a conflict, from every
// gateway.
func TestIdempotency_UnderWay(t *testing.T) {
	t.Parallel()
	cluster := storetest.NewCluster(t)
	address := cluster.NewDatabase(t)
	begun, release := make(chan struct{}), make(chan struct{})
	o := &orders{during: func(*gin.Context) error {
		close(begun)
		<-release
		return nil
	}}
	var gateways []*gatewaytest.Service
	for range 2 {
		s := start(t)
		gw := gatewaytest.Start(t, withoutKeys(), gatewaytest.Parts{Model: s.segmenter, MaxImage: maxImage, State: openState(t, store.Config{DatabaseURL: address}), Blobs: openBlobs(t), Log: discard})
		gw.HandleOnce("/v1/orders", o.post)
		gateways = append(gateways, gw)
	}
	do := func(gw *gatewaytest.Service) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, order("a", "x"))
		return w
	}
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- do(gateways[0]) }()
	<-begun
	for _, gw := range gateways {
		expectProblem(t, do(gw), http.StatusConflict, "request_under_way", "")
	}
	close(release)
	expectOrder(t, <-first, 1, false)
	for _, gw := range gateways {
		expectOrder(t, do(gw), 1, true)
	}
}

// A request that failed is not stored: its key may be used again.
func TestIdempotency_Errors(t *testing.T) {
	s, o := withOrders(t)
	fault := errors.New("a fault")
	o.during = func(*gin.Context) error { return fault }
	expectProblem(t, s.do(order("a", "x")), http.StatusInternalServerError, "internal", "")
	o.during = func(*gin.Context) error { panic("a bug") }
	expectProblem(t, s.do(order("a", "x")), http.StatusInternalServerError, "internal", "")
	o.during = nil
	expectOrder(t, s.do(order("a", "x")), 1, false)

	for code, status := range map[refersam.Code]int{
		refersam.CodeQuotaExceeded: http.StatusTooManyRequests, refersam.CodeUnfinished: http.StatusConflict, refersam.CodeFetchFailed: http.StatusUnprocessableEntity,
	} {
		o.during = func(*gin.Context) error { return refersam.Errorf(code, "Not now.") }
		expectProblem(t, s.do(order("b", "x")), status, string(code), "")
	}
	leaving, leave := context.WithCancel(t.Context())
	o.during = func(c *gin.Context) error { leave(); return c.Request.Context().Err() }
	if w := s.do(order("b", "x").WithContext(leaving)); w.Code != 499 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	o.during = nil
	expectOrder(t, s.do(order("b", "y")), 2, false)
	expectOrder(t, s.do(order("b", "y")), 2, true)

	req := order("c", "")
	req.Body = io.NopCloser(io.LimitReader(&endless{}, 1<<30))
	req.ContentLength = -1
	expectProblem(t, s.do(req), http.StatusRequestEntityTooLarge, "image_too_large", "")
}
