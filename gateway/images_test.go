package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/blobs/blobstest"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
)

// to sends a request to another route than /v1/segment.
func to(path string, req *http.Request) *http.Request {
	req.URL.Path = path
	return req
}

func upload(parts ...part) *http.Request {
	if len(parts) == 0 {
		parts = []part{{"image", picture}}
	}
	return to("/v1/images", form(parts...))
}

func decodeImage(t *testing.T, w *httptest.ResponseRecorder, status int) api.Image {
	t.Helper()
	var i api.Image
	if err := json.Unmarshal(w.Body.Bytes(), &i); err != nil || w.Code != status {
		t.Fatalf("status %d, want %d, %v: %s", w.Code, status, err, w.Body)
	}
	return i
}

func (s *service) ask(method, path string, token store.Token) *httptest.ResponseRecorder {
	return s.do(bearer(httptest.NewRequest(method, path, nil), token))
}

// A stored picture can be described, used in every form of request, and deleted.
func TestImages(t *testing.T) {
	s := start(t, authenticated)
	key, other := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
	w := s.do(bearer(upload(), key))
	sent := decodeImage(t, w, http.StatusCreated)
	sum := sha256.Sum256([]byte(picture))
	if sent.ID != "img_"+hex.EncodeToString(sum[:]) || w.Header().Get("Location") != "/v1/images/"+sent.ID || sent.MediaType != "image/png" ||
		sent.Bytes != int64(len(picture)) || sent.Width == 0 || sent.ExpiresAt.Sub(sent.CreatedAt) != 24*time.Hour {
		t.Errorf("%+v, %v", sent, w.Header())
	}
	for name, req := range map[string]*http.Request{ // the same request in other forms
		"form": upload(),
		"raw":  with(httptest.NewRequest(http.MethodPost, "/v1/images", strings.NewReader(picture)), "Content-Type", "image/jpeg"),
		"JSON": to("/v1/images", jsonRequest(`{"image": {"data": %q}}`, encoded)),
	} {
		if again := decodeImage(t, s.do(bearer(req, key)), http.StatusOK); again.ID != sent.ID || again.ExpiresAt.Before(sent.ExpiresAt) {
			t.Errorf("%s: %+v", name, again)
		}
	}
	if got := decodeImage(t, s.ask(http.MethodGet, "/v1/images/"+sent.ID, key), http.StatusOK); got.ID != sent.ID {
		t.Errorf("%+v", got)
	}
	content := s.ask(http.MethodGet, "/v1/images/"+sent.ID+"/content", key)
	if content.Body.String() != picture || content.Header().Get("Content-Type") != "image/png" {
		t.Errorf("%v", content.Header())
	}
	for _, known := range []string{content.Header().Get("ETag"), "*"} {
		req := with(httptest.NewRequest(http.MethodGet, "/v1/images/"+sent.ID+"/content", nil), "If-None-Match", known)
		if w := s.do(bearer(req, key)); w.Code != http.StatusNotModified {
			t.Errorf("%s: status %d", known, w.Code)
		}
	}

	alone := decode(t, s.do(bearer(form(part{"image", picture}, part{"phrase", "red"}), key)))
	byID := []func() *http.Request{
		func() *http.Request { return form(part{"image_id", sent.ID}, part{"phrase", "red"}) },
		func() *http.Request {
			return jsonRequest(`{"image": {"id": %q}, "prompts": [{"text": "red"}]}`, sent.ID)
		},
	}
	for _, req := range byID {
		if a := decode(t, s.do(bearer(req(), key))); a.Results[0].Area != alone.Results[0].Area {
			t.Errorf("%+v", a.Results)
		}
	}
	batch := decodeBatch(t, s.do(bearer(batchRequest(
		`{"items": [{"image": {"id": %[1]q}, "prompts": [{"text": "red"}]}, {"image": {"id": %[2]q}, "prompts": [{"text": "red"}]}]}`,
		sent.ID, "img_"+strings.Repeat("0", 64)), key)))
	if a := batch.Results[0].Answer; a == nil || a.Results[0].Area != alone.Results[0].Area {
		t.Errorf("%+v", batch.Results[0])
	}
	if p := batch.Results[1].Problem; p == nil || p.Code != "image_not_found" || p.Field != "/items/1/image/id" {
		t.Errorf("%+v", p)
	}

	// Other keys cannot see it.
	notFound := http.StatusNotFound
	expectProblem(t, s.do(bearer(byID[0](), other)), notFound, "image_not_found", "image_id")
	expectProblem(t, s.do(bearer(byID[1](), other)), notFound, "image_not_found", "/image/id")
	expectProblem(t, s.ask(http.MethodGet, "/v1/images/"+sent.ID, other), notFound, "image_not_found", "")
	expectProblem(t, s.ask(http.MethodGet, "/v1/images/"+sent.ID+"/content", other), notFound, "image_not_found", "")
	expectProblem(t, s.ask(http.MethodDelete, "/v1/images/"+sent.ID, other), notFound, "image_not_found", "")

	if w := s.ask(http.MethodDelete, "/v1/images/"+sent.ID, key); w.Code != http.StatusNoContent || w.Body.Len() > 0 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	expectProblem(t, s.do(bearer(byID[0](), key)), notFound, "image_not_found", "image_id")
	expectProblem(t, s.ask(http.MethodDelete, "/v1/images/"+sent.ID, key), notFound, "image_not_found", "")
}

func TestImageList(t *testing.T) {
	s := start(t)
	var want, got []string
	for i := range 5 {
		png := picture + strings.Repeat("\x00", i) // decoders ignore bytes after the end
		want = append([]string{decodeImage(t, s.do(upload(part{"image", png})), http.StatusCreated).ID}, want...)
	}
	for query, pages := "?limit=2", 0; query != ""; pages++ {
		if pages == 5 {
			t.Fatal("the list has no end")
		}
		var list api.Images
		w := s.get("/v1/images" + query)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK || len(list.Images) > 2 {
			t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
		}
		for _, i := range list.Images {
			got = append(got, i.ID)
		}
		query = ""
		if list.Next != "" {
			query = "?limit=2&cursor=" + url.QueryEscape(list.Next)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestImagesBadInput(t *testing.T) {
	s := start(t)
	unprocessable, unsupported := http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType
	image, phrase := part{"image", picture}, part{"phrase", "red"}
	get := func(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }
	asJSON := func(body string) *http.Request { return to("/v1/images", jsonRequest("%s", body)) }
	for _, tc := range []struct {
		name   string
		req    *http.Request
		status int
		code   string
		field  string
	}{
		{"text", upload(part{"image", "none"}), unsupported, "unsupported_media_type", "image"},
		{"nothing", upload(part{"image", ""}), unprocessable, "invalid_image", "image"},
		{"no picture", upload(part{"phrase", "red"}), unprocessable, "invalid_request", "phrase"},
		{"no field", to("/v1/images", form()), unprocessable, "invalid_request", "image"},
		{"a phrase", upload(image, phrase), unprocessable, "invalid_request", "phrase"},
		{"two pictures", upload(image, image), unprocessable, "invalid_request", "image"},
		{"a picture and a URL", upload(image, part{"image_url", "https://example.com/a.png"}), unprocessable, "invalid_request", "image_url"},
		{"an id", asJSON(`{"image": {"id": "img_1"}}`), unprocessable, "invalid_request", "/image/id"},
		{"no image", asJSON(`{}`), unprocessable, "invalid_request", "/image"},
		{"an empty URL", asJSON(`{"image": {"url": ""}}`), unprocessable, "invalid_request", "/image/url"},
		{"an unknown member", asJSON(`{"image": {"data": "AA=="}, "ttl": 5}`), unprocessable, "invalid_request", "/ttl"},
		{"too many bytes", upload(part{"image", picture + strings.Repeat("x", maxImage)}), http.StatusRequestEntityTooLarge, "image_too_large", "image"},
		{"another type", with(upload(), "Content-Type", "text/plain"), unsupported, "unsupported_media_type", ""},
		{"compressed", with(upload(), "Content-Encoding", "br"), unsupported, "unsupported_media_type", ""},
		{"a limit of 0", get("/v1/images?limit=0"), unprocessable, "invalid_request", "limit"},
		{"a limit of 101", get("/v1/images?limit=101"), unprocessable, "invalid_request", "limit"},
		{"a made-up cursor", get("/v1/images?cursor=abc"), unprocessable, "invalid_request", "cursor"},
		{"an unknown parameter", get("/v1/images?page=2"), unprocessable, "invalid_request", "page"},
		{"no id", get("/v1/images/a"), http.StatusNotFound, "image_not_found", ""},
		{"segmenting no id", form(part{"image_id", "../../etc/passwd"}, phrase), http.StatusNotFound, "image_not_found", "image_id"},
		{"an id and a picture", form(part{"image_id", "img_1"}, image, phrase), unprocessable, "invalid_request", "image"},
		{"data and an id", jsonRequest(`{"image": {"data": %q, "id": "img_1"}, "prompts": [{"text": "red"}]}`, encoded), unprocessable, "invalid_request", "/image/id"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectProblem(t, s.do(tc.req), tc.status, tc.code, tc.field) })
	}
}

// later is a time at which every unreferenced object is garbage.
func later() time.Time { return time.Now().Add(2 * time.Hour) }

// Pictures count against the quota of a key until they have been deleted and
// purged.
func TestImageQuota(t *testing.T) {
	s := start(t, authenticated, func(cfg *gateway.Config) { cfg.Images.StoragePerKey = int64(len(picture)) })
	key, other := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
	sent := decodeImage(t, s.do(bearer(upload(), key)), http.StatusCreated)
	expectProblem(t, s.do(bearer(upload(part{"image", picture + "x"}), key)), http.StatusTooManyRequests, "storage_full", "")
	decodeImage(t, s.do(bearer(upload(), key)), http.StatusOK) // takes no more of the quota
	decodeImage(t, s.do(bearer(upload(), other)), http.StatusCreated)
	if w := s.ask(http.MethodDelete, "/v1/images/"+sent.ID, key); w.Code != http.StatusNoContent {
		t.Errorf("status %d", w.Code)
	}
	purged, err := images.Purge(t.Context(), s.state, s.blobs, later())
	if err != nil || purged.Objects != 1 || purged.Bytes != int64(len(picture)) {
		t.Errorf("%+v, %v", purged, err)
	}
	decodeImage(t, s.do(bearer(upload(), key)), http.StatusCreated)
}

// An image is deleted when it expires, and so is its object.
func TestImageExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(cfg *gateway.Config) { cfg.Images.TTL = 50 * time.Millisecond })
		sent := decodeImage(t, s.do(upload()), http.StatusCreated)
		time.Sleep(60 * time.Millisecond)
		expectProblem(t, s.get("/v1/images/"+sent.ID), http.StatusNotFound, "image_not_found", "")
		expectProblem(t, s.do(form(part{"image_id", sent.ID}, part{"phrase", "red"})), http.StatusNotFound, "image_not_found", "image_id")
		if purged, err := images.Purge(t.Context(), s.state, s.blobs, time.Now()); err != nil || purged.Images != 1 || purged.Objects != 0 {
			t.Errorf("%+v, %v", purged, err)
		}
		if purged, err := images.Purge(t.Context(), s.state, s.blobs, later()); err != nil || purged.Objects != 1 {
			t.Errorf("%+v, %v", purged, err)
		}
		if n := objects(t, s.blobs); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})
}

func objects(t *testing.T, b *blobs.Bucket) (n int) {
	t.Helper()
	if err := b.Walk(t.Context(), func(string, time.Time) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// If a database was restored without its objects, images with missing objects do
// not exist until they are sent again.
func TestImageWithoutObject(t *testing.T) {
	s := start(t)
	sent := decodeImage(t, s.do(upload()), http.StatusCreated)
	lose := map[string]func(name string) error{
		"gone": func(name string) error { return s.blobs.Delete(t.Context(), name) },
		"cut":  func(name string) error { return s.blobs.Put(t.Context(), name, []byte(picture[:9])) },
	}
	byID := func() *http.Request { return form(part{"image_id", sent.ID}, part{"phrase", "red"}) }
	for _, how := range []string{"gone", "cut"} {
		s.log.Reset()
		if err := s.blobs.Walk(t.Context(), func(name string, _ time.Time) error { return lose[how](name) }); err != nil {
			t.Fatal(err)
		}
		lost := s.get("/v1/images/" + sent.ID + "/content")
		expectProblem(t, lost, http.StatusNotFound, "image_not_found", "")
		if tag := lost.Header().Get("ETag"); tag != "" {
			t.Errorf("%s is not there", tag)
		}
		expectProblem(t, s.do(byID()), http.StatusNotFound, "image_not_found", "image_id")
		if !strings.Contains(s.log.String(), "the object of an image is missing") {
			t.Errorf("the log is silent: %s", s.log)
		}
		if again := decodeImage(t, s.do(upload()), http.StatusOK); again.ID != sent.ID || !again.CreatedAt.Equal(sent.CreatedAt) {
			t.Errorf("%s: %+v", how, again)
		}
		decode(t, s.do(byID()))
		if w := s.get("/v1/images/" + sent.ID + "/content"); w.Body.String() != picture {
			t.Errorf("%s: status %d", how, w.Code)
		}
	}
	// The lost object is garbage, the image is not.
	if purged, err := images.Purge(t.Context(), s.state, s.blobs, later()); err != nil || purged.Objects != 2 {
		t.Errorf("%+v, %v", purged, err)
	}
	decode(t, s.do(byID()))
}

// An image that is deleted and purged while a request uses it stays usable for this
// request.
func TestImageDeletedInUse(t *testing.T) {
	s := start(t)
	sent := decodeImage(t, s.do(upload()), http.StatusCreated)
	s.model.SetBefore(func(context.Context) error {
		if w := s.ask(http.MethodDelete, "/v1/images/"+sent.ID, store.Token{}); w.Code != http.StatusNoContent {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		if purged, err := images.Purge(t.Context(), s.state, s.blobs, later()); err != nil || purged.Objects != 1 {
			t.Errorf("%+v, %v", purged, err)
		}
		return nil
	})
	decode(t, s.do(form(part{"image_id", sent.ID}, part{"phrase", "red"})))
	s.model.SetBefore(nil)
	expectProblem(t, s.do(form(part{"image_id", sent.ID}, part{"phrase", "red"})), http.StatusNotFound, "image_not_found", "image_id")
}

// Usage counts pictures when they are segmented, not when they are stored.
func TestImageUsage(t *testing.T) {
	s := start(t, authenticated)
	key := s.newKey(t, store.Key{})
	sent := decodeImage(t, s.do(bearer(upload(), key)), http.StatusCreated)
	if used := usage(t, s.ask(http.MethodGet, "/v1/usage", key)); len(used) != 0 {
		t.Errorf("%+v", used)
	}
	decode(t, s.do(bearer(form(part{"image_id", sent.ID}, part{"phrase", "red"}), key)))
	if used := usage(t, s.ask(http.MethodGet, "/v1/usage", key)); len(used) != 1 || used[0].Pictures != 1 {
		t.Errorf("%+v", used)
	}
}

// A crash between a row and its object leaves storage taken, until the row is
// purged.
func TestRowWithoutObject(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) { cfg.Images.StoragePerKey = int64(len(picture)) })
	if err := s.state.ReserveBlob(t.Context(), store.Blob{Name: blobs.NewName(), APIKey: "anonymous", Bytes: 1}, 1<<20, time.Now()); err != nil {
		t.Fatal(err)
	}
	w := s.do(upload())
	expectProblem(t, w, http.StatusTooManyRequests, "storage_full", "")
	if !strings.Contains(w.Body.String(), fmt.Sprintf("stores 1 bytes of pictures and answers and may store %d", len(picture))) {
		t.Errorf("%s", w.Body)
	}
	if purged, err := images.Purge(t.Context(), s.state, s.blobs, later()); err != nil || purged.Objects != 1 {
		t.Errorf("%+v, %v", purged, err)
	}
	decodeImage(t, s.do(upload()), http.StatusCreated)
}

// stubborn is a bucket that does not delete one of its objects.
type stubborn struct {
	*blobs.Bucket
	keeps string
}

func (b stubborn) Delete(ctx context.Context, name string) error {
	if name == b.keeps {
		return errors.New("no")
	}
	return b.Bucket.Delete(ctx, name)
}

// An object that cannot be deleted does not stop other deletions, and is deleted as
// soon as it can be.
func TestPurgeFails(t *testing.T) {
	s := start(t)
	var names []string
	for range 20 {
		name := blobs.NewName()
		names = append(names, name)
		if err := errors.Join(s.state.ReserveBlob(t.Context(), store.Blob{Name: name, APIKey: "k", Bytes: 1}, 1<<20, time.Now()),
			s.blobs.Put(t.Context(), name, []byte("a"))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := images.Purge(t.Context(), s.state, stubborn{s.blobs, names[3]}, later())
	if err == nil || !strings.Contains(err.Error(), names[3]) || objects(t, s.blobs) != 1 {
		t.Errorf("%d objects are left: %v", objects(t, s.blobs), err)
	}
	if n, err := images.Sweep(t.Context(), s.state, s.blobs, time.Now().Add(25*time.Hour)); err != nil || n != 1 || objects(t, s.blobs) != 0 {
		t.Errorf("%d strays, %v", n, err)
	}
}

// Strays are objects that a crash leaves without a row.
func TestSweep(t *testing.T) {
	s := start(t)
	sent := decodeImage(t, s.do(upload()), http.StatusCreated)
	if err := s.blobs.Put(t.Context(), blobs.NewName(), []byte("a stray")); err != nil {
		t.Fatal(err)
	}
	if n, err := images.Sweep(t.Context(), s.state, s.blobs, later()); err != nil || n != 0 {
		t.Errorf("%d strays too early, %v", n, err)
	}
	if n, err := images.Sweep(t.Context(), s.state, s.blobs, time.Now().Add(25*time.Hour)); err != nil || n != 1 || objects(t, s.blobs) != 1 {
		t.Errorf("%d strays, %v", n, err)
	}
	if w := s.get("/v1/images/" + sent.ID + "/content"); w.Body.String() != picture {
		t.Errorf("status %d", w.Code)
	}
}

// While others purge, a picture that clients send and delete is never half stored.
func TestImagesWhilePurging(t *testing.T) {
	t.Run("SQLite and a folder", func(t *testing.T) { testWhilePurging(t, openState(t, store.Config{Data: t.TempDir()}), openBlobs(t)) })
	t.Run("PostgreSQL and S3", func(t *testing.T) {
		state := openState(t, store.Config{DatabaseURL: storetest.NewCluster(t).NewDatabase(t)})
		testWhilePurging(t, state, openBucket(t, blobs.Config{URL: blobstest.NewS3(t)}))
	})
}

func testWhilePurging(t *testing.T, state *store.Store, bucket *blobs.Bucket) {
	s := beforeBoth(t, state, bucket, pipelinetest.NewColourModel("bert"))
	s.waitReady(t)
	gw := s.Gateway
	ctx, stop := context.WithCancel(t.Context())
	var purgers, clients sync.WaitGroup
	var purged atomic.Int64
	for range 2 {
		purgers.Go(func() {
			for ctx.Err() == nil {
				// An age of two seconds stands for an hour, or a day.
				p, err := images.Purge(context.Background(), s.state, s.blobs, time.Now().Add(time.Hour-2*time.Second))
				if err != nil {
					t.Error(err)
				}
				purged.Add(p.Objects)
				if _, err := images.Sweep(context.Background(), s.state, s.blobs, time.Now().Add(24*time.Hour-2*time.Second)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	serve := func(req *http.Request) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, req)
		return w
	}
	end := time.Now().Add(4 * time.Second)
	for i := range 3 {
		clients.Go(func() {
			png := picture + fmt.Sprint(i)
			for time.Now().Before(end) {
				var sent api.Image
				w := serve(upload(part{"image", png}))
				if err := json.Unmarshal(w.Body.Bytes(), &sent); err != nil || w.Code/100 != 2 {
					t.Errorf("status %d: %s", w.Code, w.Body)
					continue
				}
				if w := serve(httptest.NewRequest(http.MethodGet, "/v1/images/"+sent.ID+"/content", nil)); w.Code != http.StatusOK || w.Body.String() != png {
					t.Errorf("status %d: %.100s", w.Code, w.Body)
				}
				serve(httptest.NewRequest(http.MethodDelete, "/v1/images/"+sent.ID, nil))
			}
		})
	}
	clients.Wait()
	stop()
	purgers.Wait()
	if purged.Load() == 0 {
		t.Error("nothing was purged meanwhile")
	}
	if _, err := images.Purge(t.Context(), s.state, s.blobs, later()); err != nil || objects(t, s.blobs) != 0 {
		t.Errorf("%d objects are left: %v", objects(t, s.blobs), err)
	}
}

// A picture that is sent again with the same idempotency key gets the first answer.
func TestImageIdempotency(t *testing.T) {
	s := start(t)
	first := s.do(with(upload(), "Idempotency-Key", "a"))
	again := s.do(with(upload(), "Idempotency-Key", "a"))
	if first.Code != http.StatusCreated || again.Code != http.StatusCreated || again.Header().Get("Idempotency-Replayed") != "true" ||
		!bytes.Equal(first.Body.Bytes(), again.Body.Bytes()) || again.Header().Get("Location") != first.Header().Get("Location") {
		t.Errorf("%d, %d, %v", first.Code, again.Code, again.Header())
	}
	expectProblem(t, s.do(with(upload(part{"image", picture + "x"}), "Idempotency-Key", "a")), http.StatusUnprocessableEntity, "idempotency_key_reused", "")
}

// If a bucket cannot be written, the error does not blame the client.
func TestImageStorageAway(t *testing.T) {
	s := start(t)
	folder := t.TempDir()
	broken, err := blobs.Open(t.Context(), blobs.Config{}, folder)
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gw := gatewaytest.Start(t, withoutKeys(), gatewaytest.Parts{Model: s.segmenter, MaxImage: maxImage, State: s.state, Blobs: broken, Log: discard})
	w := httptest.NewRecorder()
	gw.ServeHTTP(w, upload())
	expectProblem(t, w, http.StatusServiceUnavailable, "upstream_unavailable", "")
	if purged, err := images.Purge(t.Context(), s.state, s.blobs, later()); err != nil || purged.Objects != 0 {
		t.Errorf("a row was left: %+v, %v", purged, err)
	}
}

// A request by id needs no more memory than there is, and a request with an address
// and an Idempotency-Key holds no memory for its body during the fetch.
func TestImageMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(cfg *gateway.Config) { cfg.Answers.BodyMemory = int64(len(picture)) - 1 })
		sent := decodeImage(t, s.do(upload()), http.StatusCreated)
		decode(t, s.do(form(part{"image_id", sent.ID}, part{"phrase", "red"})))

		s = start(t, func(cfg *gateway.Config) { cfg.Answers.BodyMemory = 4 << 20 })
		release := make(chan struct{})
		const n = 60
		begun := make(chan struct{}, n)
		s.fetcher.during = func() { begun <- struct{}{}; <-release }
		s.fetcher.put("https://good.example/a.png", picture)
		body := `{"image":{"url":"https://good.example/a.png"}}` + strings.Repeat(" ", 1<<20)
		var group sync.WaitGroup
		for i := range n {
			req := to("/v1/images", jsonRequest(""))
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			group.Go(func() { s.ServeHTTP(httptest.NewRecorder(), with(req, "Idempotency-Key", fmt.Sprint(i))) })
		}
		<-begun
		synctest.Wait()
		runtime.GC()
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		if live := memory.HeapAlloc >> 20; live > 40 {
			t.Errorf("%d MiB are held", live)
		}
		close(release)
		group.Wait()
	})
}
