package gateway_test

import (
	"context"
	"flag"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/refersam/refersam/gateway/gatewaytest"
)

var docsScreenshot = flag.String("docs-screenshot", "", "write a picture of /docs to this file")

// The reference is rendered, and nothing of it is kept back by the content
// security policy.
func TestDocs_Browser(t *testing.T) {
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
	if *docsScreenshot != "" {
		picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*docsScreenshot, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
