package triton_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// field is what decides how a field looks on the wire.
type field struct {
	Number   int
	Kind     string
	Repeated bool
	Target   string // the full name of a field's message or enum
}

// protocol describes messages, enums and methods by full name.
type protocol struct {
	Messages map[string]map[string]field
	Enums    map[string]map[string]int
	Methods  map[string][2]string // request and response
}

// Everything that inference.proto declares is in the protocol of NVIDIA's own
// client, with the same numbers and types.
func TestProtocolIsTritons(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), pythonPath(), filepath.Join("testdata", "describe_protocol.py"))
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the tests need the wheel tritonclient in the project's virtual environment, which `make test` makes: %v", err)
	}
	var theirs protocol
	if err := json.Unmarshal(out, &theirs); err != nil {
		t.Fatal(err)
	}
	ours := describe(pb.File_triton_inference_proto)

	if len(ours.Messages) == 0 || len(ours.Enums) == 0 || len(ours.Methods) == 0 {
		t.Fatalf("nothing to compare: %+v", ours)
	}
	for name, fields := range ours.Messages {
		for fieldName, got := range fields {
			want, ok := theirs.Messages[name][fieldName]
			if !ok {
				t.Errorf("%s.%s is not in Triton's protocol", name, fieldName)
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s.%s (-Triton +ours):\n%s", name, fieldName, diff)
			}
		}
		if _, ok := theirs.Messages[name]; !ok {
			t.Errorf("message %s is not in Triton's protocol", name)
		}
	}
	for name, got := range ours.Enums {
		if diff := cmp.Diff(theirs.Enums[name], got); diff != "" {
			t.Errorf("enum %s (-Triton +ours):\n%s", name, diff)
		}
	}
	for name, got := range ours.Methods {
		if diff := cmp.Diff(theirs.Methods[name], got); diff != "" {
			t.Errorf("method %s (-Triton +ours):\n%s", name, diff)
		}
	}
}

func describe(file protoreflect.FileDescriptor) protocol {
	p := protocol{make(map[string]map[string]field), make(map[string]map[string]int), make(map[string][2]string)}
	p.messages(file.Messages())
	for i := range file.Enums().Len() {
		enum := file.Enums().Get(i)
		values := make(map[string]int)
		for j := range enum.Values().Len() {
			values[string(enum.Values().Get(j).Name())] = int(enum.Values().Get(j).Number())
		}
		p.Enums[string(enum.FullName())] = values
	}
	for i := range file.Services().Len() {
		methods := file.Services().Get(i).Methods()
		for j := range methods.Len() {
			method := methods.Get(j)
			p.Methods[string(method.FullName())] = [2]string{
				string(method.Input().FullName()), string(method.Output().FullName()),
			}
		}
	}
	return p
}

func (p *protocol) messages(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		message := messages.Get(i)
		fields := make(map[string]field)
		for j := range message.Fields().Len() {
			descriptor := message.Fields().Get(j)
			f := field{
				Number:   int(descriptor.Number()),
				Kind:     descriptor.Kind().String(),
				Repeated: descriptor.Cardinality() == protoreflect.Repeated,
			}
			if target := descriptor.Message(); target != nil {
				f.Target = string(target.FullName())
			}
			if target := descriptor.Enum(); target != nil {
				f.Target = string(target.FullName())
			}
			fields[string(descriptor.Name())] = f
		}
		p.Messages[string(message.FullName())] = fields
		p.messages(message.Messages())
	}
}

// The committed code is what generate.sh makes of inference.proto.
func TestGenerated(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "./generate.sh", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generate.sh needs grpcio-tools in the project's virtual environment, which `make test` makes: %v\n%s", err, out)
	}
	for _, name := range []string{"inference.pb.go", "inference_grpc.pb.go"} {
		want, err := os.ReadFile(filepath.Join(dir, "triton", "inferencepb", name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("inferencepb", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date, `make generate` renews it (-generated +committed):\n%s", name, diff)
		}
	}
}
