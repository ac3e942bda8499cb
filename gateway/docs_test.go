package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/pipeline/pipelinetest"
)

// The reference is rendered, and the content security policy blocks no part of it.
func TestDocs_Browser(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	server := httptest.NewServer(start(t))
	defer server.Close()
	ctx := gatewaytest.Browser(t)
	watch := chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `window.violations = [];
			document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI))`})
		return err
	})
	if err := chromedp.Do(ctx,
		watch,
		chromedp.EmulateViewport(1200, 1600),
		chromedp.Navigate(server.URL+"/docs"),
		chromedp.WaitVisible(chromedp.CSS(`#operations-masks-segment`)),
		chromedp.Click(chromedp.CSS(`#operations-masks-segment button.opblock-summary-control`)),
		chromedp.WaitVisible(chromedp.CSS(`#operations-masks-segment .responses-table`)),
		chromedp.Click(chromedp.CSS(`#operations-masks-segment .try-out__btn`)),
		chromedp.WaitVisible(chromedp.CSS(`#operations-masks-segment .execute`)),
	); err != nil {
		t.Fatal(err)
	}
	violations, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`violations`))
	if err != nil {
		t.Fatal(err)
	}
	if len(violations) > 0 {
		t.Errorf("the content security policy was violated: %q", violations)
	}
	screenshot(t, ctx, "docs")
}

// A visitor who chooses a picture, types a phrase and presses Execute gets a mask,
// and the page sends only what the visitor has entered.
func TestDocs_TryItOut(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	path := filepath.Join(t.TempDir(), "squares.png")
	if err := os.WriteFile(path, pipelinetest.Squares(), 0o644); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var sent []string // the last request: the query and the fields of the form
	s := start(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			mu.Lock()
			sent = append(slices.Collect(maps.Keys(r.URL.Query())), formFields(t, r.Header.Get("Content-Type"), body)...)
			for _, name := range []string{"Idempotency-Key", "If-None-Match", "Prefer", "X-Request-Id", "X-Unit-Id"} {
				if r.Header.Get(name) != "" {
					sent = append(sent, name)
				}
			}
			mu.Unlock()
		}
		s.ServeHTTP(w, r)
	}))
	defer server.Close()

	for _, tc := range []struct {
		operation string
		fill      []chromedp.Action[chromedp.Void]
		want      []string
		status    string
	}{
		{"masks-segment", []chromedp.Action[chromedp.Void]{
			chromedp.SendKeys(chromedp.CSS(`#operations-masks-segment [data-property-name=phrase] input[type=text]`), "the red square"),
		}, []string{"image", "phrase"}, "200"},
		{"images-uploadImage", nil, []string{"image"}, "201"},
	} {
		t.Run(tc.operation, func(t *testing.T) {
			ctx := gatewaytest.Browser(t)
			operation := "#operations-" + tc.operation
			actions := []chromedp.Action[chromedp.Void]{
				chromedp.EmulateViewport(1200, 1600),
				chromedp.Navigate(server.URL + "/docs"),
				chromedp.WaitVisible(chromedp.CSS(operation)),
				chromedp.Click(chromedp.CSS(operation + " button.opblock-summary-control")),
				chromedp.Click(chromedp.CSS(operation + " .try-out__btn")),
				chromedp.WaitVisible(chromedp.CSS(operation + " .execute")),
				chromedp.SetUploadFiles(chromedp.CSS(operation+" [data-property-name=image] input[type=file]"), []string{path}),
			}
			actions = append(actions, tc.fill...)
			actions = append(actions,
				chromedp.Click(chromedp.CSS(operation+" .execute")),
				chromedp.WaitVisible(chromedp.CSS(operation+" .live-responses-table .response-col_status")),
			)
			err := chromedp.Do(ctx, actions...)
			screenshot(t, ctx, tc.operation)
			if err != nil {
				t.Fatal(err)
			}
			status, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(operation+" .live-responses-table tr.response td.response-col_status")))
			if err != nil {
				t.Fatal(err)
			}
			body, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(operation+" .live-responses-table tr.response td.response-col_description")))
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if status, _, _ := strings.Cut(status, "\n"); status != tc.status {
				t.Errorf("status %q, want %s: %s", status, tc.status, body)
			}
			if slices.Sort(sent); !slices.Equal(sent, tc.want) {
				t.Errorf("the page sent %q, want %q", sent, tc.want)
			}
		})
	}
}

// formFields are the names of a form's fields.
func formFields(t *testing.T, contentType string, body []byte) (names []string) {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "multipart/form-data" {
		return []string{contentType}
	}
	for parts := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Error(err)
			return names
		}
		names = append(names, part.FormName())
	}
}

// screenshot writes a picture of the browser's page into the folder of
// -screenshots.
func screenshot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), picture, 0o600); err != nil {
		t.Fatal(err)
	}
}
