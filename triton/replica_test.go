package triton_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// randomRow makes a row that testModel takes.
func randomRow(rng *rand.Rand) triton.Row {
	row := triton.Row{
		Pixels: triton.PixelsOf(make([]uint8, 3*imageSize*imageSize), nil),
		IDs:    make([]int32, maxTokens),
		Mask:   make([]int32, maxTokens),
	}
	for i := range row.Pixels.Bytes() {
		row.Pixels.Bytes()[i] = uint8(rng.UintN(256))
	}
	for i := range 1 + rng.IntN(maxTokens) {
		row.IDs[i] = rng.Int32N(30000)
		row.Mask[i] = 1
	}
	return row
}

// checkLogits holds got against the arithmetic of testModel, which
// testdata/make_repository.py states.
func checkLogits(t *testing.T, row triton.Row, got refersam.Logits) {
	t.Helper()
	if got.Width != side || got.Height != side || len(got.Values) != side*side {
		t.Errorf("logits of %d × %d with %d values, want %d × %d", got.Width, got.Height, len(got.Values), side, side)
		return
	}
	pixels := row.Pixels.Bytes()
	var sum, count float64
	for i := range row.IDs {
		sum += float64(row.IDs[i] * row.Mask[i])
		count += float64(row.Mask[i])
	}
	for y := range side {
		for x := range side {
			var cell float64
			for dy := range 4 {
				for dx := range 4 {
					at := 3 * ((4*y+dy)*imageSize + 4*x + dx)
					cell += float64(pixels[at]) + float64(pixels[at+1]) + float64(pixels[at+2])
				}
			}
			want := cell/48/255*10 - 5 + sum/count/100
			if value := float64(got.Values[y*side+x]); math.Abs(value-want) > 1e-4 {
				t.Errorf("logit (%d, %d) is %v, want %v", x, y, value, want)
				return
			}
		}
	}
}

func TestContracts(t *testing.T) {
	fleet := fleetOf(t, startLocal(t, localConfig(t)).Address())
	contracts, err := fleet.Contracts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []triton.Contract{{
		Model:      "refersam_tiny",
		Variant:    "tiny",
		Version:    "1",
		Tokenizer:  "bert-base-uncased",
		MaxTokens:  maxTokens,
		ImageSize:  imageSize,
		MaxBatch:   8,
		Resize:     "stretch",
		Upsample:   "bilinear_align_corners",
		Threshold:  0.5,
		Checkpoint: strings.Repeat("0123456789abcdef", 4),
		Precision:  "fp32",
		Label:      "two stages of arithmetic",
		Steps:      "refersam_tiny_image,refersam_tiny_decoder",
	}}
	if diff := cmp.Diff(want, contracts); diff != "" {
		t.Errorf("contracts (-want +got):\n%s", diff)
	}
}

func TestInfer(t *testing.T) {
	var log logBuffer
	cfg := localConfig(t)
	cfg.Logger = log.logger()
	fleet := fleetOf(t, startLocal(t, cfg).Address())
	model := contract(t, fleet)
	if err := fleet.Probe(t.Context(), model); err != nil {
		t.Errorf("probe: %v", err)
	}

	for n := 1; n <= model.MaxBatch; n++ {
		t.Run(fmt.Sprintf("%d rows", n), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(n), 0))
			rows := make([]triton.Row, n)
			for i := range rows {
				rows[i] = randomRow(rng)
			}
			batch, err := fleet.Replicas()[0].Infer(t.Context(), model, rows)
			if err != nil {
				t.Fatal(err)
			}
			if len(batch) != n {
				t.Fatalf("%d answers, want %d", len(batch), n)
			}
			for i, row := range rows {
				checkLogits(t, row, batch[i])
				single, err := fleet.Replicas()[0].Infer(t.Context(), model, []triton.Row{row})
				if err != nil {
					t.Fatal(err)
				}
				if !cmp.Equal(batch[i], single[0]) {
					t.Errorf("row %d in a batch differs from itself alone", i)
				}
			}
		})
	}

	// The server's dynamic batcher joins these, each must get its own rows back.
	t.Run("concurrent", func(t *testing.T) {
		var wait sync.WaitGroup
		for caller := range 8 {
			wait.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(caller), 1))
				for range 20 {
					rows := make([]triton.Row, 1+rng.IntN(3))
					for i := range rows {
						rows[i] = randomRow(rng)
					}
					answers, err := fleet.Replicas()[0].Infer(t.Context(), model, rows)
					if err != nil {
						t.Error(err)
						return
					}
					for i, row := range rows {
						checkLogits(t, row, answers[i])
					}
				}
			})
		}
		wait.Wait()
	})

	t.Run("silence", func(t *testing.T) {
		for line := range strings.Lines(log.String()) {
			if !strings.Contains(line, "level=DEBUG") && !strings.Contains(line, "tritonserver is ready") {
				t.Errorf("inference that works is no reason to speak: %s", line)
			}
		}
	})

	t.Run("rows that do not fit", func(t *testing.T) {
		good := randomRow(rand.New(rand.NewPCG(0, 0)))
		tests := []struct {
			name string
			rows []triton.Row
			want string
		}{
			{"none", nil, "0 rows"},
			{"too many", make([]triton.Row, model.MaxBatch+1), "9 rows"},
			{"pixels", []triton.Row{{triton.PixelsOf(good.Pixels.Bytes()[1:], nil), good.IDs, good.Mask}}, "3071 bytes"},
			{"ids", []triton.Row{good, {good.Pixels, good.IDs[1:], good.Mask}}, "row 1 has 5 ids"},
			{"mask", []triton.Row{{good.Pixels, good.IDs, append(good.Mask, 1)}}, "mask of 7"},
			{"nothing real", []triton.Row{{good.Pixels, good.IDs, make([]int32, maxTokens)}}, "no real token"},
		}
		for _, test := range tests {
			if _, err := fleet.Replicas()[0].Infer(t.Context(), model, test.rows); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: error %v, want one that says %q", test.name, err, test.want)
			}
		}
	})

	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		err := fleet.Probe(ctx, model)
		if code := refersam.ErrorCode(err); code != refersam.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want code %s", err, refersam.CodeDeadlineExceeded)
		}
	})

	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := fleet.Probe(ctx, model); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
	})

	t.Run("other sizes than the server's", func(t *testing.T) {
		other := *model
		other.ImageSize = 64
		err := fleet.Probe(t.Context(), &other)
		var fault *triton.ReplicaError
		if !errors.As(err, &fault) || fault.Fault != triton.Replaced {
			t.Errorf("error %v, want the fault %q", err, triton.Replaced)
		}
	})
}

func TestNotReady(t *testing.T) {
	cfg := localConfig(t)
	cfg.ModelControl = true
	local := startLocal(t, cfg)
	fleet := fleetOf(t, local.Address())
	model := contract(t, fleet)

	for _, test := range []struct{ name, model, version string }{
		{"unknown model", "refersam_absent", "1"},
		{"unknown version", model.Model, "7"},
	} {
		other := *model
		other.Model, other.Version = test.model, test.version
		if err := fleet.Probe(t.Context(), &other); refersam.ErrorCode(err) != refersam.CodeNotReady {
			t.Errorf("%s: error %v, want code %s", test.name, err, refersam.CodeNotReady)
		}
	}

	unload(t, local.Address(), model.Model)
	if err := fleet.Probe(t.Context(), model); refersam.ErrorCode(err) != refersam.CodeNotReady {
		t.Errorf("unloaded: error %v, want code %s", err, refersam.CodeNotReady)
	}
	if _, err := fleet.Contracts(t.Context()); refersam.ErrorCode(err) != refersam.CodeNotReady {
		t.Errorf("contracts without a model: error %v, want code %s", err, refersam.CodeNotReady)
	}
}

// unload makes a server forget a model.
func unload(t *testing.T, address, model string) {
	t.Helper()
	if err := unloadModel(t, address, model); err != nil {
		t.Fatal(err)
	}
}

// unloadModel asks a server to forget a model and returns what it says to that.
func unloadModel(t *testing.T, address, model string) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// RepositoryModelUnloadRequest has the model's name in field 2, as
	// ModelReadyRequest has the version; the response has no fields.
	request := &pb.ModelReadyRequest{Version: model}
	return conn.Invoke(t.Context(), "/inference.GRPCInferenceService/RepositoryModelUnload", request, &pb.RepositoryIndexRequest{})
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	fleet := fleetOf(t, address)
	if _, err := fleet.Contracts(t.Context()); refersam.ErrorCode(err) != refersam.CodeUnavailable {
		t.Errorf("contracts: error %v, want code %s", err, refersam.CodeUnavailable)
	}
	model := &triton.Contract{Model: testModel, Version: "1", MaxBatch: 8, ImageSize: imageSize, MaxTokens: maxTokens}
	err = fleet.Probe(t.Context(), model)
	if refersam.ErrorCode(err) != refersam.CodeUnavailable {
		t.Errorf("probe: error %v, want code %s", err, refersam.CodeUnavailable)
	}
	var shown *refersam.Error
	if errors.As(err, &shown) && strings.Contains(shown.Message, address) {
		t.Errorf("message %q shows the server's address", shown.Message)
	}
}

// A server is killed while it works: callers learn that it is unavailable, and
// nothing of it is left.
func TestServerKilled(t *testing.T) {
	local := startLocal(t, localConfig(t))
	fleet := fleetOf(t, local.Address())
	model := contract(t, fleet)
	server := serverOf(t, os.Getpid())
	rng := rand.New(rand.NewPCG(3, 3))

	failed := make(chan error, 1)
	go func() {
		row := randomRow(rng)
		for {
			if _, err := fleet.Replicas()[0].Infer(t.Context(), model, []triton.Row{row}); err != nil {
				failed <- err
				return
			}
		}
	}()
	time.Sleep(50 * time.Millisecond) // the load runs before the server dies
	if err := syscall.Kill(server.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		if refersam.ErrorCode(err) != refersam.CodeUnavailable {
			t.Errorf("error %v, want code %s", err, refersam.CodeUnavailable)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("inference goes on without a server")
	}
	select {
	case <-local.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the server's end was not noticed")
	}
	if err := local.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("end of the server: %v, want one that says killed", err)
	}
	if traces := server.traces(t); len(traces) > 0 {
		t.Errorf("left behind: %q", traces)
	}
}

// One of two servers dies: the fleet goes on, and the error names the server at
// fault.
func TestOneOfTwoDies(t *testing.T) {
	first := startLocal(t, localConfig(t))
	victim := serverOf(t, os.Getpid())
	second := startLocal(t, localConfig(t))
	fleet := fleetOf(t, first.Address(), second.Address())
	model := contract(t, fleet)
	if err := syscall.Kill(victim.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	row := randomRow(rand.New(rand.NewPCG(4, 4)))
	for _, r := range fleet.Replicas() {
		answers, err := r.Infer(t.Context(), model, []triton.Row{row})
		var fault *triton.ReplicaError
		switch {
		case r.Name() == second.Address() && err != nil:
			t.Errorf("the other server: %v", err)
		case r.Name() == second.Address():
			checkLogits(t, row, answers[0])
		case !errors.As(err, &fault) || fault.Fault != triton.Unreachable || fault.Replica != first.Address():
			t.Errorf("the dead server: %v", err)
		}
	}
	if got := contract(t, fleet); *got != *model {
		t.Errorf("contract %+v after one server died, before %+v", got, model)
	}
	if err := fleet.Probe(t.Context(), model); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	valid := triton.DefaultConfig()
	valid.Addresses = []string{"triton:8001", "[::1]:8001", "10.0.0.1:65535", "unix:/run/triton/grpc", "unix:///run/triton/grpc"}
	valid.Checkpoints = []string{"bert:4acc7e55", "clip_2:" + strings.Repeat("0f", 32)}
	if err := valid.Validate(); err != nil {
		t.Errorf("valid config: %v", err)
	}
	tests := []struct {
		name   string
		change func(*triton.Config)
		want   string
	}{
		{"no port", func(c *triton.Config) { c.Addresses = []string{"triton"} }, `"triton", allowed: host:port or unix:/path`},
		{"no host", func(c *triton.Config) { c.Addresses = []string{":8001"} }, `":8001", allowed: host:port`},
		{"port 0", func(c *triton.Config) { c.Addresses = []string{"triton:0"} }, "from 1 to 65535"},
		{"port name", func(c *triton.Config) { c.Addresses = []string{"triton:grpc"} }, "from 1 to 65535"},
		{"socket without a path", func(c *triton.Config) { c.Addresses = []string{"unix:"} }, "an absolute path"},
		{"relative socket", func(c *triton.Config) { c.Addresses = []string{"unix:run/grpc"} }, "an absolute path"},
		{"long socket", func(c *triton.Config) { c.Addresses = []string{"unix:/" + strings.Repeat("x", 107)} }, "with 108 bytes, allowed: at most 107"},
		{"no checkpoint", func(c *triton.Config) { c.Checkpoints = []string{"bert:latest"} }, `REFERSAM_CHECKPOINTS has "bert:latest", allowed: variant:checkpoint`},
		{"two checkpoints", func(c *triton.Config) { c.Checkpoints = []string{"bert:00000000", "bert:11111111"} }, `the variant "bert" twice`},
		{"no connections", func(c *triton.Config) { c.Connections = 0 }, "REFERSAM_TRITON_CONNECTIONS"},
		{"connect timeout", func(c *triton.Config) { c.ConnectTimeout = 0 }, "REFERSAM_TRITON_CONNECT_TIMEOUT"},
		{"resolve interval", func(c *triton.Config) { c.ResolveInterval = 0 }, "REFERSAM_TRITON_RESOLVE_INTERVAL"},
		{"metadata timeout", func(c *triton.Config) { c.MetadataTimeout = -1 }, "REFERSAM_TRITON_METADATA_TIMEOUT"},
	}
	for _, test := range tests {
		cfg := valid
		test.change(&cfg)
		if _, err := triton.NewFleet(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one that says %q", test.name, err, test.want)
		}
	}
}

// A server that computes equal pictures once must not be measured with equal
// pictures.
func TestBlankPicturesDiffer(t *testing.T) {
	var pictures [][]byte
	server := &fakeServer{infer: func(_ context.Context, request *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		pictures = append(pictures, request.GetRawInputContents()[0])
		return goodAnswer(1), nil
	}}
	replica := replicaAt(t, serveFake(t, "127.0.0.1:0", server))
	for range 2 {
		if err := replica.Probe(t.Context(), fakeContract()); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range triton.BlankRows(fakeContract(), 3) {
		pictures = append(pictures, row.Pixels.Bytes())
	}
	for i, picture := range pictures {
		if len(picture) != 3*imageSize*imageSize {
			t.Errorf("picture %d has %d bytes", i, len(picture))
		}
		for j := range i {
			if bytes.Equal(picture, pictures[j]) {
				t.Errorf("pictures %d and %d are equal", j, i)
			}
		}
	}
}
