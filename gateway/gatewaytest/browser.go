// Package gatewaytest drives the web page in a real browser, for tests.
package gatewaytest

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// Canvas returns red, green and blue of the page's canvas, row by row from the
// top left.
func Canvas(t *testing.T, ctx context.Context) []int {
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

// Drop drags a file from outside the browser onto the picture's place.
func Drop(path string) chromedp.Action[chromedp.Void] {
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

// Browser starts a headless Chromium with its own profile for one test.
func Browser(t *testing.T) context.Context {
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
