package tests_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
	pb "github.com/refersam/refersam/triton/inferencepb"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// collector receives traces over OTLP, by gRPC and by HTTP.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	grpc, http string // addresses

	mu      sync.Mutex
	spans   []*tracepb.Span
	headers []string // authorization of each gRPC call
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(ln) }() // it ends with Stop
	t.Cleanup(server.Stop)
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request *collectorpb.ExportTraceServiceRequest
		if err == nil {
			request, err = decodeTraces(r.Header.Get("Content-Type"), body)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("traces were sent to %s: %v", r.URL.Path, err)
		}
		c.add(request)
	}))
	t.Cleanup(web.Close)
	c.grpc, c.http = "http://"+ln.Addr().String(), web.URL
	return c
}

// decodeTraces reads a request in protobuf, or in JSON as tritonserver sends it.
func decodeTraces(mediaType string, body []byte) (*collectorpb.ExportTraceServiceRequest, error) {
	request := &collectorpb.ExportTraceServiceRequest{}
	if mediaType != "application/json" {
		return request, proto.Unmarshal(body, request)
	}
	// In OTLP's JSON ids are hexadecimal, in protobuf's they are base64.
	body = regexp.MustCompile(`"(traceId|spanId|parentSpanId)":"([0-9a-f]*)"`).ReplaceAllFunc(body, func(field []byte) []byte {
		name, id, _ := bytes.Cut(field, []byte(`":"`))
		raw, _ := hex.DecodeString(string(bytes.TrimSuffix(id, []byte(`"`))))
		return fmt.Appendf(nil, `%s":"%s"`, name, base64.StdEncoding.EncodeToString(raw))
	})
	return request, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, request)
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(ctx context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.add(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, metadata.ValueFromIncomingContext(ctx, "authorization")...)
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func (c *collector) add(r *collectorpb.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

// wait returns the spans of a trace when those with the given names have come.
func (c *collector) wait(t *testing.T, traceID string, names ...string) map[string]*tracepb.Span {
	t.Helper()
	var all map[string]*tracepb.Span
	await.Until(t, 30*time.Second, func() error {
		all = make(map[string]*tracepb.Span)
		c.mu.Lock()
		for _, span := range c.spans {
			if hex.EncodeToString(span.GetTraceId()) == traceID {
				all[span.GetName()] = span
			}
		}
		c.mu.Unlock()
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return all[name] != nil })
		if len(missing) > 0 {
			return fmt.Errorf("the trace %s lacks %v; it has %v", traceID, missing, slices.Sorted(maps.Keys(all)))
		}
		return nil
	})
	return all
}

const (
	tracedID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	tracedParent = "00f067aa0ba902b7"
)

// serveTraced starts a gateway with settings of traces.
func serveTraced(t *testing.T, address string, environment ...string) *service {
	t.Helper()
	s, err := launch(t.TempDir(), append(environment, "REFERSAM_TRITON="+address, "OTEL_BSP_SCHEDULE_DELAY=50"), "serve")
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	return s
}

// askTraced asks for a mask as a client that has a trace.
func (s *service) askTraced(t *testing.T, picture []byte) {
	t.Helper()
	contentType, body := form(t, part{"image", string(picture)}, part{"phrase", "the duck"})
	s.post(t, contentType, body, "Traceparent", "00-"+tracedID+"-"+tracedParent+"-01", "Tracestate", "vendor=value").answer(t)
}

func samplePicture(t *testing.T) []byte {
	t.Helper()
	picture, err := os.ReadFile(filepath.Join(repositoryRoot, "gateway", "web", "samples", "ducks.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

// steps are the spans of a request.
var steps = []string{"POST /v1/segment", "read", "decode", "row", "queue", "batch", "mask", "write"}

// One trace leads from the client through every step to the model server's call.
func TestTraces(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			c := startCollector(t)
			fake := startFake(t)
			calls := make(chan metadata.MD, 100)
			fake.behave(func(ctx context.Context, n int) (*pb.ModelInferResponse, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				if len(md.Get("traceparent")) > 0 {
					calls <- md
				}
				return well(ctx, n)
			})
			endpoint := c.http
			if protocol == "grpc" {
				endpoint = c.grpc
			}
			s := serveTraced(t, fake.address, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
				"OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20topsecret", "REFERSAM_LOG_LEVEL=DEBUG")
			s.askTraced(t, samplePicture(t))
			spans := c.wait(t, tracedID, steps...)
			parents := map[string]string{
				"POST /v1/segment": tracedParent, "queue": hex.EncodeToString(spans["row"].GetSpanId()), "batch": hex.EncodeToString(spans["row"].GetSpanId()),
			}
			for name, span := range spans {
				want, ok := parents[name]
				if !ok {
					want = hex.EncodeToString(spans["POST /v1/segment"].GetSpanId())
				}
				if got := hex.EncodeToString(span.GetParentSpanId()); got != want {
					t.Errorf("%s is below %s, want %s", name, got, want)
				}
			}
			if links := spans["batch"].GetLinks(); len(links) != 1 || !bytes.Equal(links[0].GetSpanId(), spans["row"].GetSpanId()) {
				t.Errorf("the batch has the links %v", links)
			}
			md := <-calls
			want := fmt.Sprintf("00-%s-%x-01", tracedID, spans["batch"].GetSpanId())
			if got := strings.Join(md.Get("traceparent"), " "); got != want || strings.Join(md.Get("tracestate"), " ") != "vendor=value" {
				t.Errorf("the model server gets the traceparent %q, want %q, and the tracestate %q", got, want, md.Get("tracestate"))
			}
			log := s.logs.all()
			if !strings.Contains(log, "trace_id="+tracedID) {
				t.Error("the log does not name the trace")
			}
			if strings.Contains(log, "topsecret") {
				t.Error("a secret is in the log")
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if protocol == "grpc" && !slices.Contains(c.headers, "Bearer topsecret") {
				t.Errorf("the collector gets the headers %v", c.headers)
			}
		})
	}
}

// A collector that does not answer costs neither requests nor the stop.
func TestTraces_DeadCollector(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			s := serveTraced(t, startFake(t).address, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+ln.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol)
			picture := samplePicture(t)
			begun := time.Now()
			for range 20 {
				s.askTraced(t, picture)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("20 requests took %v", took)
			}
			begun = time.Now()
			if err := s.signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("the stop took %v", took)
			}
			if !strings.Contains(s.logs.all(), "the collector does not accept traces") {
				t.Errorf("the log does not name the collector: %s", s.logs.all())
			}
		})
	}
}

// A real tritonserver continues the trace: its spans for the ensemble and for its
// stage are below the batch.
func TestTraces_Triton(t *testing.T) {
	c := startCollector(t)
	address := startTracing(t, c)
	s := serveTraced(t, address, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.http)
	s.askTraced(t, samplePicture(t))
	spans := c.wait(t, tracedID, append(steps, "InferRequest", "refersam_null", "refersam_null_whole")...)
	way := []string{"batch", "InferRequest", "refersam_null", "refersam_null_whole"}
	for i, name := range way[1:] {
		if parent := spans[name].GetParentSpanId(); !bytes.Equal(parent, spans[way[i]].GetSpanId()) {
			t.Errorf("%s is not below %s", name, way[i])
		}
	}
}

// startTracing starts a tritonserver with OpenTelemetry's mode of tracing, which
// refersam's own server does not have: it is the same server once more, with other
// arguments.
func startTracing(t *testing.T, c *collector) (address string) {
	t.Helper()
	process := fmt.Sprintf("/proc/%d/", startNull(t).local.PID())
	var lists [2][]string
	for i, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(process + name)
		if err != nil {
			t.Fatal(err)
		}
		lists[i] = strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	}
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	args := slices.DeleteFunc(lists[0], func(arg string) bool {
		return strings.HasPrefix(arg, "--grpc-") || strings.HasPrefix(arg, "--backend-config=python,shm-region-prefix-name=")
	})
	args = append(args, "--grpc-address=127.0.0.1", "--grpc-port="+port,
		"--trace-config=mode=opentelemetry", "--trace-config=level=TIMESTAMPS", "--trace-config=count=-1", "--trace-config=rate=0",
		"--trace-config=opentelemetry,url="+c.http+"/v1/traces", "--trace-config=opentelemetry,bsp_schedule_delay=50")
	server := exec.Command(args[0], args[1:]...)
	server.Env = lists[1]
	log := &buffer{}
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM) // so that it removes its shared memory
		kill := time.AfterFunc(stopTimeout, func() { _ = server.Process.Kill() })
		_ = server.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("log of tritonserver:\n%s", log)
		}
	})
	return address
}
