package gateway_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"image/jpeg"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/gateway/web"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/triton"
)

// screenshots is the folder for screenshots, for people to look at.
var screenshots = flag.String("screenshots", "", "write screenshots into this folder")

// When a picture is dropped on the page and a phrase typed, the page shows the mask
// over the picture. Then it shows a problem in words.
func TestPage_Browser(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	s := start(t)
	// The page opens a sample by itself. A sample that arrives late must not
	// replace a picture that was dropped meanwhile.
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
	ctx := gatewaytest.Browser(t)
	err := chromedp.Do(ctx,
		chromedp.EmulateViewport(1200, 800),
		chromedp.Navigate(server.URL),
		chromedp.WaitVisible(chromedp.CSS(`input[name=variant][value=clip]`)),
		gatewaytest.Drop(path),
		chromedp.Poll[chromedp.Void](opened),
	)
	close(dropped)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx,
		chromedp.Poll[chromedp.Void](`[...document.querySelectorAll("#samples img")].every((image) => image.naturalWidth > 0)`),
		chromedp.Sleep(200*time.Millisecond), // a late sample has arrived by now
		chromedp.Poll[chromedp.Void](opened, chromedp.WithPollingTimeout(time.Second)),
	); err != nil {
		t.Fatalf("a sample took the place of the picture that was dropped: %v", err)
	}
	before := gatewaytest.Canvas(t, ctx)
	if err := chromedp.Do(ctx,
		chromedp.SendKeys(chromedp.CSS(`#phrase`), "the red square\r"),
		chromedp.WaitVisible(chromedp.CSS(`#facts`)),
	); err != nil {
		t.Fatal(err)
	}
	found, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(`#status`)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(found, "Found “the red square” in ") {
		t.Errorf("the page says %q, want the phrase that was found", found)
	}
	after := gatewaytest.Canvas(t, ctx)
	const width, height = 320, 240
	if len(before) != 3*width*height || len(after) != len(before) {
		t.Fatalf("the canvas has %d and %d values, want those of %d × %d pixels", len(before), len(after), width, height)
	}
	// Inside the mask little changes; outside, everything gets darker by half.
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
		chromedp.SendKeys(chromedp.CSS(`#phrase`), " once more"), // the first answer is cached
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
	if !slices.Equal(gatewaytest.Canvas(t, ctx), before) {
		t.Error("the page still shows the mask of the answer before")
	}
}

// If the service requires keys, the page asks for one and then continues.
func TestPage_Key(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	s := start(t, authenticated)
	token := s.newKey(t, store.Key{})
	server := httptest.NewServer(s)
	defer server.Close()
	ctx := gatewaytest.Browser(t)
	if err := chromedp.Do(ctx,
		chromedp.EmulateViewport(1200, 800),
		chromedp.Navigate(server.URL),
		chromedp.WaitVisible(chromedp.CSS("#key")),
		chromedp.SendKeys(chromedp.CSS("#key"), "rsk_wrong\r"),
		chromedp.Poll[chromedp.Void](`document.getElementById("problem").textContent.includes("cut off")`),
		chromedp.WaitVisible(chromedp.CSS("#key")),
	); err != nil {
		t.Fatal(err)
	}
	if *screenshots != "" {
		image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*screenshots, "key.png"), image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := chromedp.Do(ctx,
		chromedp.SendKeys(chromedp.CSS("#key"), token.Reveal()+"\r"),
		chromedp.WaitVisible(chromedp.CSS("input[name=variant][value=clip]")),
		chromedp.Poll[chromedp.Void](`document.getElementById("key-form").hidden && document.getElementById("problem").hidden`),
		chromedp.Poll[chromedp.Void](`!location.href.includes("rsk_") && !Object.values(localStorage).join().includes("rsk_")`),
	); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.log.String(), token.Secret) {
		t.Error("the log has the key")
	}
}

// Each sample is the picture that its list describes, small, and has a licence.
func TestPage_Samples(t *testing.T) {
	t.Parallel()
	licences, err := web.Files.ReadFile("samples/LICENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, list := range []string{"samples", "photographs"} {
		text, err := web.Files.ReadFile("samples/" + list + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var samples []struct {
			File          string
			Width, Height int
			Phrases       []string
		}
		if err := json.Unmarshal(text, &samples); err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		for _, sample := range samples {
			listed[sample.File] = true
			content, err := web.Files.ReadFile("samples/" + sample.File)
			if err != nil {
				t.Fatal(err)
			}
			header, err := jpeg.DecodeConfig(bytes.NewReader(content))
			if err != nil {
				t.Fatalf("%s: %v", sample.File, err)
			}
			if header.Width != sample.Width || header.Height != sample.Height || max(header.Width, header.Height) > 1024 || len(content) > 200_000 {
				t.Errorf("%s has %d × %d pixels and %d bytes, want %d × %d, at most 1024 and 200,000", sample.File, header.Width, header.Height,
					len(content), sample.Width, sample.Height)
			}
			if len(sample.Phrases) == 0 || !bytes.Contains(licences, []byte("`"+sample.File+"`")) {
				t.Errorf("%s has the phrases %q; LICENCES.md must name its licence", sample.File, sample.Phrases)
			}
		}
	}
	files, err := fs.Glob(web.Files, "samples/*.jpg")
	if err != nil || len(files) != len(listed) {
		t.Errorf("the samples are %q (%v), and the lists name %d", files, err, len(listed))
	}
}

// The page says what the weights know, by their label.
func TestPage_Label(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	for label, want := range map[string]string{"demo": "scenes of emoji", "photo": "80 kinds of things in photographs", "mine": ""} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			model := pipelinetest.NewColourModel("bert", "clip")
			model.SetContract(func(c *triton.Contract) { c.Label = label })
			s := loading(t, model)
			s.waitReady(t)
			server := httptest.NewServer(s)
			defer server.Close()
			ctx := gatewaytest.Browser(t)
			err := chromedp.Do(ctx,
				chromedp.Navigate(server.URL),
				chromedp.WaitVisible(chromedp.CSS(`input[name=variant][value=clip]`)),
			)
			if err != nil {
				t.Fatal(err)
			}
			said, err := chromedp.Run(ctx, chromedp.Evaluate[string](
				`[...document.querySelectorAll("#demo, #photo")].filter((p) => !p.hidden).map((p) => p.textContent).join("|")`))
			if err != nil {
				t.Fatal(err)
			}
			// The samples are those that the weights know.
			sample := map[string]string{"demo": "ducks.jpg"}[label]
			if sample == "" {
				sample = "horses.jpg"
			}
			if err := chromedp.Do(ctx,
				chromedp.WaitVisible(chromedp.CSS(`#samples [data-file="`+sample+`"][aria-current=true]`)),
				chromedp.Poll[chromedp.Void](`document.getElementById("photo").hidden || document.querySelectorAll("#names li").length === 80`),
			); err != nil {
				t.Errorf("the page does not open %s: %v", sample, err)
			}
			if want == "" && said != "" || !strings.Contains(said, want) || strings.Contains(said, "|") {
				t.Errorf("the page says %q, want what is about %q and nothing else", said, want)
			}
		})
	}
}
