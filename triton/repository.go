package triton

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Ensembles returns the names of the ensembles in a repository, sorted, and one
// error per model that cannot be loaded: one with an unreadable configuration,
// because it may be an ensemble, and one that is not there although it is a step of
// ensembles. It is an error when there is no ensemble.
func Ensembles(repository, configName string) (names []string, broken []error, err error) {
	if info, err := os.Stat(repository); err != nil {
		return nil, nil, fmt.Errorf("REFERSAM_MODEL_REPOSITORY, the folder of the models: %w; name a folder with models in it", err)
	} else if !info.IsDir() {
		return nil, nil, fmt.Errorf("REFERSAM_MODEL_REPOSITORY, the folder of the models: %s is not a folder", repository)
	}
	folders, err := filepath.Glob(filepath.Join(repository, ModelPrefix+"*"))
	if err != nil {
		return nil, nil, err
	}
	var absent []string
	for _, folder := range folders {
		_, config, err := ConfigFile(repository, configName, filepath.Base(folder))
		if err != nil {
			broken = append(broken, err)
			continue
		}
		if config.GetEnsembleScheduling() == nil {
			continue
		}
		name := filepath.Base(folder)
		names = append(names, name)
		for _, step := range config.GetEnsembleScheduling().GetStep() {
			stage := step.GetModelName()
			if _, err := os.Stat(filepath.Join(repository, stage)); errors.Is(err, fs.ErrNotExist) && !slices.Contains(absent, stage) {
				absent = append(absent, stage)
				broken = append(broken, fmt.Errorf("model repository %s has no model %s, which is a stage of the ensemble %s: "+
					"export the variant again", repository, stage, name))
			}
		}
	}
	if len(names) == 0 && len(broken) > 0 {
		return nil, nil, errors.Join(broken...)
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("model repository %s has no ensemble named %s*: "+
			"export one into it, or name another folder in REFERSAM_MODEL_REPOSITORY", repository, ModelPrefix)
	}
	return names, broken, nil
}

// ConfigFile returns which file of a repository configures a model in a server
// that was started with --model-config-name=configName, and what it says.
func ConfigFile(repository, configName, model string) (string, *pb.ModelConfig, error) {
	path := filepath.Join(repository, model, "configs", configName+".pbtxt")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(repository, model, "config.pbtxt")
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return "", nil, fmt.Errorf("model repository: %w", err)
	}
	config, err := ParseConfig(text)
	if err != nil {
		return "", nil, fmt.Errorf("model repository: %s: %w", path, err)
	}
	return path, config, nil
}

// ParseConfig reads the text of a config.pbtxt. Fields that are not known here
// are skipped.
func ParseConfig(text []byte) (*pb.ModelConfig, error) {
	var config pb.ModelConfig
	err := prototext.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, &config)
	return &config, err
}

// Config returns the configuration of a model that r has loaded.
func (r *Replica) Config(ctx context.Context, model string) (*pb.ModelConfig, error) {
	response, err := r.stub().ModelConfig(ctx, &pb.ModelConfigRequest{Name: model})
	if err != nil {
		return nil, r.failure(ctx, model, "reading the configuration", err)
	}
	return response.GetConfig(), nil
}

// Load makes r load a model anew with a configuration of its own, which stays
// until the model is unloaded or loaded with another. A server that has the
// model already changes instance groups in place; for anything else it loads
// the model a second time and then drops the first.
//
// It returns when the model is ready. Its error is Triton's reason; the model
// is then as it was before, as far as Triton keeps its word. Servers take it
// in --model-control-mode=explicit only.
func (r *Replica) Load(ctx context.Context, config *pb.ModelConfig) error {
	if name := unknownField(config.ProtoReflect()); name != "" {
		return r.fault(Failed, config.GetName(), fmt.Errorf("its %s has settings that are not known here and would be lost", name))
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(config)
	if err != nil {
		return err
	}
	_, err = r.stub().RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{
		ModelName: config.GetName(),
		Parameters: map[string]*pb.ModelRepositoryParameter{
			"config": {ParameterChoice: &pb.ModelRepositoryParameter_StringParam{StringParam: string(text)}},
		},
	})
	if err != nil {
		if s, ok := status.FromError(err); ok && ctx.Err() == nil {
			err = errors.New(s.Message())
		}
		return r.failure(ctx, config.GetName(), "loading", err)
	}
	return nil
}

// unknownField returns the name of a message in m that came with fields that
// are not known here, or "".
func unknownField(m protoreflect.Message) string {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().Name())
	}
	found := ""
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				found = unknownField(v.Message())
				return found == ""
			})
		case field.IsList() && field.Message() != nil:
			for i := 0; i < value.List().Len() && found == ""; i++ {
				found = unknownField(value.List().Get(i).Message())
			}
		case !field.IsMap() && !field.IsList() && field.Message() != nil:
			found = unknownField(value.Message())
		}
		return found == ""
	})
	return found
}

// WithInstances returns a copy of a configuration with count instances in each
// group; a configuration without a group has one, of Triton's choice.
func WithInstances(config *pb.ModelConfig, count int) *pb.ModelConfig {
	copied := proto.CloneOf(config)
	if len(copied.InstanceGroup) == 0 {
		copied.InstanceGroup = []*pb.ModelInstanceGroup{{}}
	}
	for _, group := range copied.InstanceGroup {
		group.Count = int32(count)
	}
	return copied
}
