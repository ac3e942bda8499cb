package gateway_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/refersam/refersam/pipeline/pipelinetest"
)

// A picture is dropped on the page, a phrase typed, and the page shows the
// mask in the picture's place; then it says in words what a problem says.
func TestPage_Browser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	s := start(t)
	// The page opens a sample by itself; one that arrives late must not take
	// the place of a picture that was dropped meanwhile.
	dropped := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".jpg") {
			<-dropped
		}
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "squares.png")
	if err := os.WriteFile(path, pipelinetest.Squares(), 0o644); err != nil {
		t.Fatal(err)
	}

	const opened = `document.getElementById("canvas").getAttribute("aria-label").includes("squares.png")`
	ctx := browser(t)
	err := chromedp.Do(ctx,
		chromedp.EmulateViewport(1200, 800),
		chromedp.Navigate(server.URL),
		chromedp.WaitVisible(chromedp.CSS(`input[name=variant][value=clip]`)),
		drop(path),
		chromedp.Poll[chromedp.Void](opened),
	)
	close(dropped)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx,
		chromedp.Poll[chromedp.Void](`[...document.querySelectorAll("#samples img")].every((image) => image.naturalWidth > 0)`),
		chromedp.Sleep(200*time.Millisecond), // what would arrive late has arrived
		chromedp.Poll[chromedp.Void](opened, chromedp.WithPollingTimeout(time.Second)),
	); err != nil {
		t.Fatalf("a sample took the place of the picture that was dropped: %v", err)
	}
	before := canvas(t, ctx)
	if err := chromedp.Do(ctx,
		chromedp.SendKeys(chromedp.CSS(`#phrase`), "the red square\r"),
		chromedp.WaitVisible(chromedp.CSS(`#facts`)),
	); err != nil {
		t.Fatal(err)
	}
	after := canvas(t, ctx)
	const width, height = 320, 240
	if len(before) != 3*width*height || len(after) != len(before) {
		t.Fatalf("the canvas has %d and %d values, want those of %d × %d pixels", len(before), len(after), width, height)
	}
	// Inside the mask little changes, outside it everything gets darker by half.
	inside, outside := pipelinetest.Red.Inset(10), pipelinetest.Red.Inset(-10)
	for y := range height {
		for x := range width {
			i := 3*(y*width+x) + 1 // green
			point := [2]int{x, y}
			darker := after[i] < before[i]*8/10
			switch {
			case inside.Min.X <= x && x < inside.Max.X && inside.Min.Y <= y && y < inside.Max.Y:
				if darker || after[i] == before[i] {
					t.Fatalf("%v is in the mask and was drawn %d, from %d", point, after[i], before[i])
				}
			case x < outside.Min.X || x >= outside.Max.X || y < outside.Min.Y || y >= outside.Max.Y:
				if !darker {
					t.Fatalf("%v is outside the mask and was drawn %d, from %d", point, after[i], before[i])
				}
			}
		}
	}

	const narrow = 360
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(narrow, 740)); err != nil {
		t.Fatal(err)
	}
	wide, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
	if err != nil {
		t.Fatal(err)
	}
	if wide > narrow {
		t.Errorf("on a phone of %d pixels the page is %d wide", narrow, wide)
	}

	s.model.SetDown(errAway)
	if err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS(`#find`)),
		chromedp.WaitVisible(chromedp.CSS(`#problem`)),
	); err != nil {
		t.Fatal(err)
	}
	problem, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(`#problem`)))
	if err != nil {
		t.Fatal(err)
	}
	if problem != "away" {
		t.Errorf("the page says %q, want the problem's detail", problem)
	}
	if !slices.Equal(canvas(t, ctx), before) {
		t.Error("the page still shows the mask of the answer before")
	}
}

// canvas returns red, green and blue of the page's canvas, row by row.
func canvas(t *testing.T, ctx context.Context) []int {
	t.Helper()
	pixels, err := chromedp.Run(ctx, chromedp.Evaluate[[]int](`(() => {
		const canvas = document.getElementById("canvas");
		const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
		return Array.from(data).filter((_, i) => i % 4 < 3);
	})()`))
	if err != nil {
		t.Fatal(err)
	}
	return pixels
}

// drop drags a file from outside the browser onto the picture's place.
func drop(path string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		event := input.DispatchDragEventParams{
			X: 300, Y: 400,
			Data: &input.DragData{Items: []*input.DragDataItem{}, Files: []string{path}, DragOperationsMask: 1},
		}
		for _, event.Type = range []input.DispatchDragEventType{
			input.DispatchDragEventTypeDragEnter, input.DispatchDragEventTypeDragOver, input.DispatchDragEventTypeDrop,
		} {
			if _, err := cdp.Call(ctx, target, input.DispatchDragEvent, event); err != nil {
				return err
			}
		}
		return nil
	})
}

// browser starts a headless Chromium with a profile of its own for one test.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of its first call
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	return ctx
}
