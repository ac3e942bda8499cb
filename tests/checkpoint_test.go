package tests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/tokenize"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// tiny is a model that costs next to nothing but has all stages, so that the
// weights of the stages can change one after the other.
var tiny = ensembles.Cost{Fixed: time.Millisecond}

// weighted is a tritonserver with numbered weights. It accepts other weights by a
// request, as in explicit model control, or by a restart at the same address.
type weighted struct {
	*tritonServer
	write func(dir string, cost ensembles.Cost, weights int) error
}

func startWeights(t *testing.T, weights int, write func(dir string, cost ensembles.Cost, weights int) error) *weighted {
	t.Helper()
	return &weighted{startTriton(t, func(dir string) error { return write(dir, tiny, weights) }), write}
}

// restart gives the server other weights by killing it.
func (s *weighted) restart(t *testing.T, weights int) {
	t.Helper()
	s.kill(t)
	if err := s.write(s.config.Repository, tiny, weights); err != nil {
		t.Error(err)
	}
	s.start(t)
}

// reload gives the server other weights while it serves, one model after the
// other in a random order. In the pauses between them it has stages of both.
func (s *weighted) reload(t *testing.T, random *rand.Rand, weights int) {
	t.Helper()
	if err := s.write(s.config.Repository, tiny, weights); err != nil {
		t.Error(err)
		return
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	models := []string{"", "_text", "_image", "_vli", "_vlp", "_decoder"}
	random.Shuffle(len(models), func(i, j int) { models[i], models[j] = models[j], models[i] })
	for _, model := range models {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := pb.NewGRPCInferenceServiceClient(conn).RepositoryModelLoad(ctx,
			&pb.RepositoryModelLoadRequest{ModelName: "refersam_" + ensembles.CalibratedVariant + model})
		cancel()
		if err != nil {
			t.Logf("loading %s: %v", model, err)
			return
		}
		time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond) // requests come between the loads
	}
}

// witness asks a service for masks and compares each answer with the checkpoint
// that it names.
type witness struct {
	service  *service
	tokens   *tokenize.Tokenizer
	right    atomic.Int64
	refused  atomic.Int64
	byOrigin sync.Map
	fresh    atomic.Int64 // made by the model
	seen     sync.Map     // checkpoints
}

// ask asks for a picture and a phrase, often one of a few, so that some requests
// are answered by a cache or together with another request.
func (w *witness) ask(random *rand.Rand) error {
	shade := uint8(random.UintN(4))
	phrase := fmt.Sprintf("thing number %d", random.IntN(6))
	if random.IntN(4) > 0 {
		phrase = fmt.Sprintf("thing number %d", random.IntN(1e6))
	}
	e := w.tokens.Encode(phrase)
	want := ensembles.MarksOf(shade, shade, shade, e.IDs, e.Mask)
	contentType, body, err := encodeForm(part{"image", string(plainPicture(color.NRGBA{shade, shade, shade, 255}))}, part{"phrase", phrase})
	if err != nil {
		return err
	}
	resp, err := client.Post(w.service.url+"/v1/segment", contentType, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return err
		}
		if p.Status != http.StatusServiceUnavailable && p.Status != http.StatusGatewayTimeout && p.Status != http.StatusBadGateway {
			return fmt.Errorf("status %d: %s", p.Status, p.Detail)
		}
		w.refused.Add(1)
		return nil
	}
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return err
	}
	mask, err := decodeRLE(a.Results[0].Masks.RLE)
	if err != nil {
		return err
	}
	got, ok := ensembles.ReadMarks(mask.width, mask.height, mask.at)
	if !ok {
		return errors.New("the mask spells no marks")
	}
	pictureBy, phraseBy := int(got.Image)-int(want.Image), int(got.Text)-int(want.Text)
	if pictureBy != phraseBy || ensembles.CheckpointOf(pictureBy) != a.Model.Checkpoint {
		return fmt.Errorf("an answer (%s) that names the checkpoint %s was made of the picture by weights %d and of the phrase by weights %d",
			a.Results[0].Origin, a.Model.Checkpoint, pictureBy, phraseBy)
	}
	w.right.Add(1)
	if a.Results[0].Origin == "model" {
		w.fresh.Add(1)
	}
	w.byOrigin.Store(a.Results[0].Origin, true)
	w.seen.Store(a.Model.Checkpoint, true)
	return nil
}

// run asks, with several clients, until ctx ends.
func (w *witness) run(ctx context.Context, t *testing.T, clients int) {
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(3, uint64(c)))
			for ctx.Err() == nil {
				if err := w.ask(random); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond) // the pace of a client
			}
		})
	}
	wait.Wait()
}

func count(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// No answer names weights that did not make it, whatever servers load at random
// moments: their models one by one over a connection that stays, or all of them
// by a restart at the same address.
func TestAnswersNameTheirWeights(t *testing.T) {
	tokens, err := tokenize.New(ensembles.Tokenizer, ensembles.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, memory string
		write        func(dir string, cost ensembles.Cost, weights int) error
	}{
		{"stamps and shared memory", "auto", ensembles.WriteWeights},
		{"looks without shared memory", "off", ensembles.WriteUnstamped},
	} {
		t.Run(test.name, func(t *testing.T) {
			one, other := startWeights(t, 1, test.write), startWeights(t, 1, test.write)
			g := serveBefore(t, []string{"REFERSAM_SHARED_MEMORY=" + test.memory, "REFERSAM_REFRESH_INTERVAL=1s"}, one.address, other.address)
			w := &witness{service: g.service, tokens: tokens}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.run(ctx, t, 6)
			}()
			random := rand.New(rand.NewPCG(2, 2))
			// Each of the three weights is in use once, and one of them again. make
			// crash-proof changes them more often.
			changes := 3
			if rounds, _ := crashRounds(); rounds > 1 {
				changes = 5 * rounds
			}
			for weights := 2; weights < 2+changes; weights++ {
				// In turns the weights are ones that were loaded before.
				next := 1 + weights%3
				for _, s := range []*weighted{one, other} {
					time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond) // requests come between the changes
					if random.IntN(3) == 0 {
						s.restart(t, next)
					} else {
						s.reload(t, random, next)
					}
				}
			}
			g.waitServed(t, 20*time.Second)
			before := w.right.Load()
			await.True(t, 20*time.Second, "an answer after the last change", func() bool { return w.right.Load() > before })
			cancel()
			<-done
			t.Logf("%d answers of %d checkpoints, %d of them made by the model for their request; %d requests refused",
				w.right.Load(), count(&w.seen), w.fresh.Load(), w.refused.Load())
			if count(&w.seen) != 3 || count(&w.byOrigin) < 2 || w.right.Load() == before {
				t.Errorf("%d answers, %d at the end; %d checkpoints, want 3; %d origins, want cached answers too",
					w.right.Load(), w.right.Load()-before, count(&w.seen), count(&w.byOrigin))
			}
		})
	}
}

// waitServed waits until the service answers.
func (g *guarded) waitServed(t *testing.T, limit time.Duration) {
	t.Helper()
	await.Until(t, limit, func() error { return g.answers("/readyz") })
}
