package tests_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/refersam/refersam/gateway/gatewaytest"
)

// When a picture is dropped on the page and a phrase typed, the page must show the
// mask that the API returns.
func TestPage(t *testing.T) {
	s := shared.get(t)
	scene := scenes(t)[0]
	phrase := scene.Questions[0].Phrase
	a := s.segment(t, "", part{"image", string(scene.picture(t))}, part{"phrase", phrase}, part{"variant", "clip"})
	want := mustDecode(t, *a.Results[0].Masks.RLE)

	path, err := filepath.Abs(filepath.Join("testdata", scene.File))
	if err != nil {
		t.Fatal(err)
	}
	ctx := gatewaytest.Browser(t)
	open := fmt.Sprintf(`document.getElementById("canvas").getAttribute("aria-label").includes(%q)`, scene.File)
	err = chromedp.Do(ctx,
		chromedp.EmulateViewport(1200, 800),
		chromedp.Navigate(s.url),
		chromedp.WaitVisible(chromedp.CSS(`input[name=variant][value=clip]`)),
		chromedp.Click(chromedp.CSS(`input[name=variant][value=clip]`)),
		gatewaytest.Drop(path),
		chromedp.Poll[chromedp.Void](open),
		chromedp.SendKeys(chromedp.CSS(`#phrase`), phrase+"\r"),
		chromedp.WaitVisible(chromedp.CSS(`#facts`)),
	)
	if err != nil {
		t.Fatal(err)
	}
	shown := gatewaytest.Canvas(t, ctx)
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`#show`))); err != nil {
		t.Fatal(err)
	}
	hidden := gatewaytest.Canvas(t, ctx)

	if len(shown) != 3*scene.Width*scene.Height {
		t.Fatalf("the canvas has %d values, want those of %d × %d pixels", len(shown), scene.Width, scene.Height)
	}
	// The page darkens everything outside the mask and only tints the mask itself.
	// So a pixel of the mask keeps at least 70 % of its green. The mask's outline,
	// red and white, lies outside the mask and is not compared.
	got := bitmap{width: scene.Width, height: scene.Height, set: make([]bool, len(want.set))}
	for x := range scene.Width {
		for y := range scene.Height {
			i := 3 * (y*scene.Width + x)
			got.set[x*scene.Height+y] = tinted(shown[i:i+3], hidden[i:i+3])
		}
	}
	if agreement := iou(got, want); agreement < 0.95 {
		t.Errorf("what the page shows has IoU %.3f with the API's mask, want at least 0.95", agreement)
	}
}

// screenshot is the file that TestScreenshot writes. `make result-picture` makes the
// picture of README with it.
var screenshot = flag.String("screenshot", "", "write a picture of the page with the shipped models to this file")

// The sample and the phrase that the picture of README shows.
const shownSample, shownPhrase = "horses.jpg", "the horse on the right"

func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("no -screenshot")
	}
	s, err := launch(t.TempDir(), shippedModels, "up")
	if err != nil {
		t.Fatal(err)
	}
	defer s.kill()
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	ctx := gatewaytest.Browser(t)
	err = chromedp.Do(ctx,
		chromedp.EmulateViewport(1080, 740),
		chromedp.Navigate(s.url),
		chromedp.WaitVisible(chromedp.CSS(`[data-file="`+shownSample+`"]`)),
		chromedp.Click(chromedp.CSS(`[data-file="`+shownSample+`"]`)),
		chromedp.WaitVisible(chromedp.CSS(`[data-file="`+shownSample+`"][aria-current=true]`)),
		chromedp.SendKeys(chromedp.CSS(`#phrase`), shownPhrase+"\r"),
		chromedp.WaitVisible(chromedp.CSS(`#facts`)),
		chromedp.Evaluate[chromedp.Void](`window.scrollTo(0, 0)`),
	)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*screenshot, picture, 0o644); err != nil {
		t.Fatal(err)
	}
}

// tinted reports whether a pixel is 78 % itself and 22 % the page's accent,
// #ff4a22.
func tinted(shown, hidden []int) bool {
	for channel, accent := range [3]float64{0xff, 0x4a, 0x22} {
		difference := float64(shown[channel]) - (0.78*float64(hidden[channel]) + 0.22*accent)
		if difference < -3 || difference > 3 {
			return false
		}
	}
	return true
}
