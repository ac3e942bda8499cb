package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
)

// blackPNG has few bytes and takes long to decode.
func blackPNG(t *testing.T, width, height int) []byte {
	t.Helper()
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&out, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Once it is known how long decoding takes, a picture that cannot be decoded in
// time is refused at once, and a smaller one is not.
func TestSegment_TooLargeForDeadline(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	huge := ask("red")
	huge.Image = blackPNG(t, 5000, 4000)
	begin := time.Now()
	if _, err := s.Segment(t.Context(), huge); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Since(begin)/4)
	defer cancel()
	huge.Phrases[0].Text = "another, for which the picture is read again"
	_, err := s.Segment(ctx, huge)
	if ctx.Err() != nil {
		t.Error("it was not refused before its deadline")
	}
	expectError(t, err, refersam.CodeDeadlineExceeded, "/image")
	if err != nil && !strings.Contains(err.Error(), "to decode") {
		t.Errorf("error %v does not say why", err)
	}
	if _, err := s.Segment(ctx, ask("red")); err != nil && ctx.Err() == nil {
		t.Errorf("a small picture: %v", err)
	}
}

// A small picture that comes later is read before a huge one that waits.
func TestSegment_SmallBeforeHuge(t *testing.T) {
	huge := blackPNG(t, 3000, 2000)
	synctest.Test(t, func(t *testing.T) {
		s := newSegmenter(t, pipelinetest.NewColourModel("bert"), func(c *pipeline.Config) { c.Workers = 1 })
		run(t, s)
		synctest.Wait()

		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []string
		segment := func(name string, image []byte, encode func()) {
			req := ask(name)
			req.Image = image
			prepared := prepare(t, s, req)
			sink := &pipeline.Sink{Encode: func(int, *refersam.Result, pipeline.Origin) error {
				encode()
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
				return nil
			}}
			wg.Go(func() {
				if _, err := prepared.Run(t.Context(), sink); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
			synctest.Wait()
		}
		proceed := make(chan struct{})
		segment("first", pipelinetest.Squares(), func() { <-proceed }) // it holds the only place
		segment("huge", huge, func() {})
		segment("small", pipelinetest.Squares(), func() {})
		close(proceed)
		wg.Wait()
		if want := []string{"first", "small", "huge"}; !slices.Equal(order, want) {
			t.Errorf("read in the order %v, want %v", order, want)
		}
	})
}

// However many small steps come, a large one waits for no more work than its
// own cost beyond what was there before it.
func TestCPUSlots_NobodyStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const large, small = 1000, 100
		p := pipeline.NewCPUSlots(1)
		release, err := p.Acquire(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		begun := make(chan func(), 1)
		go func() {
			release, err := p.Acquire(t.Context(), large)
			if err != nil {
				t.Error(err)
			}
			begun <- release
		}()
		synctest.Wait()
		overtook := 0
		for {
			next := make(chan func(), 1)
			go func() {
				release, err := p.Acquire(t.Context(), small)
				if err != nil {
					t.Error(err)
				}
				next <- release
			}()
			synctest.Wait()
			release()
			synctest.Wait()
			select {
			case release := <-begun:
				release()
				(<-next)()
				if overtook != large/small-1 {
					t.Errorf("%d small steps overtook a large one, want %d", overtook, large/small-1)
				}
				return
			case release = <-next:
				if overtook++; overtook > 2*large/small {
					t.Fatal("the large step starves")
				}
			}
		}
	})
}

// Heavy steps leave a place to others, unless there is only one.
func TestCPUSlots_Heavy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ slots, atOnce int }{{1, 1}, {2, 1}, {4, 3}} {
			p := pipeline.NewCPUSlots(tt.slots)
			var releases []func()
			for range tt.atOnce {
				release, err := p.Acquire(t.Context(), pipeline.HeavyCost)
				if err != nil {
					t.Fatal(err)
				}
				releases = append(releases, release)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := p.Acquire(ctx, pipeline.HeavyCost); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d slots: one more heavy step: %v", tt.slots, err)
			}
			cancel()
			if tt.slots > 1 {
				light, err := p.Acquire(t.Context(), pipeline.HeavyCost-1)
				if err != nil {
					t.Fatal(err)
				}
				light()
			}
			for _, release := range releases {
				release()
			}
			// A step that gave up occupies no place.
			for range tt.atOnce {
				release, err := p.Acquire(t.Context(), pipeline.HeavyCost)
				if err != nil {
					t.Fatal(err)
				}
				defer release()
			}
		}
	})
}

func TestCPUSlots_Ended(t *testing.T) {
	p := pipeline.NewCPUSlots(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Acquire(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context has ended", err)
	}
	release, err := p.Acquire(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipeline.Pace
		p.Learn(1<<20, time.Hour)
		if err := p.Check(1<<30, time.Now()); err != nil {
			t.Errorf("refused by what one small picture took: %v", err)
		}
		p.Learn(1<<30, time.Second)
		p.Learn(1<<30, time.Second)
		if err := p.Check(1<<29, time.Now().Add(time.Second)); err != nil {
			t.Errorf("half a second's work in a second: %v", err)
		}
		refused := 0
		for p.Check(1<<30, time.Now().Add(time.Second/2)) != nil {
			if refused++; refused > 100 {
				t.Fatal("a pace that is wrong stays for ever")
			}
		}
		if refused < 10 {
			t.Errorf("a second's work was refused %d times in half a second", refused)
		}
	})
}
