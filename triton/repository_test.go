package triton_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/protobuf/proto"
)

// Instances come and go while the model is loaded, and what a server refuses
// leaves the model as it was.
func TestLoad(t *testing.T) {
	cfg := localConfig(t)
	cfg.ModelControl = true
	fleet := fleetOf(t, startLocal(t, cfg).Address())
	replica, model := fleet.Replicas()[0], contract(t, fleet)
	step := model.StepNames()[0]
	original, err := replica.Config(t.Context(), step)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want *pb.ModelConfig) {
		t.Helper()
		got, err := replica.Config(t.Context(), step)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("configuration is %v, want %v", got, want)
		}
		if err := fleet.Probe(t.Context(), model); err != nil {
			t.Error(err)
		}
	}
	for _, count := range []int{3, 1} {
		want := triton.WithInstances(original, count)
		if err := replica.Load(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		check(want)
	}
	impossible := triton.WithInstances(original, 1)
	impossible.InstanceGroup[0].Kind = pb.ModelInstanceGroup_KIND_GPU
	if err := replica.Load(t.Context(), impossible); err == nil || !strings.Contains(err.Error(), "no GPUs are available") {
		t.Errorf("error %v, want Triton's reason", err)
	}
	check(original)
}

// Fields of a configuration that this program does not know must not get lost.
func TestLoad_unknownField(t *testing.T) {
	fleet := fleetOf(t, startLocal(t, localConfig(t)).Address())
	config := &pb.ModelConfig{Name: testModel, Input: []*pb.ModelInput{{}}}
	config.Input[0].ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 0x01})
	err := fleet.Replicas()[0].Load(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "ModelInput") {
		t.Errorf("error %v, want one that names ModelInput", err)
	}
}

func TestConfigFile(t *testing.T) {
	repository := filepath.Join("testdata", "model_repository")
	for _, tc := range []struct{ model, name, want string }{
		{"refersam_tiny_image", "cpu", "refersam_tiny_image/configs/cpu.pbtxt"},
		{"refersam_tiny_image", "onnx", "refersam_tiny_image/config.pbtxt"},
		{"refersam_tiny", "cpu", "refersam_tiny/config.pbtxt"},
	} {
		path, config, err := triton.ConfigFile(repository, tc.name, tc.model)
		if err != nil || path != filepath.Join(repository, tc.want) || config.GetName() != tc.model {
			t.Errorf("%s with %s: %s, %v, want %s", tc.model, tc.name, path, err, tc.want)
		}
	}
	if _, _, err := triton.ConfigFile(repository, "cpu", "refersam_none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v of a model that is not there", err)
	}
}
