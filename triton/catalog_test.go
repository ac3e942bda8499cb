package triton_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// withCheckpoint is ensembleConfig with other weights.
func withCheckpoint(begin string) *pb.ModelConfig {
	config := ensembleConfig()
	config.Parameters["checkpoint"].StringValue = begin + strings.Repeat("0", 64-len(begin))
	return config
}

// Where servers differ, the pinned checkpoint is chosen, else the one that is
// served, else the one of most servers; the other servers are named.
func TestCatalogOfServersThatDiffer(t *testing.T) {
	serve := func(begin string) string {
		return serveFake(t, "127.0.0.1:0", &fakeServer{config: withCheckpoint(begin)})
	}
	newer, older, old := serve("bbbbbbbb"), serve("aaaaaaaa"), serve("aaaaaaaa")
	contractAt := func(begin string) triton.Contract { return *contractOf(withCheckpoint(begin)) }
	const away = "127.0.0.1:1"
	for _, test := range []struct {
		name    string
		servers []string
		pins    []string
		serving []triton.Contract
		want    string // "" for none
		aside   []string
	}{
		{name: "most", servers: []string{newer, older, old}, want: "aaaaaaaa", aside: []string{newer}},
		{name: "served", servers: []string{newer, older, old}, serving: []triton.Contract{contractAt("bbbbbbbb")}, want: "bbbbbbbb", aside: []string{older, old}},
		{name: "served, on one server of two", servers: []string{newer, old}, serving: []triton.Contract{contractAt("aaaaaaaa")}, want: "aaaaaaaa", aside: []string{newer}},
		{name: "served, and on no server that can be reached", servers: []string{newer, away}, serving: []triton.Contract{contractAt("aaaaaaaa")}, want: "bbbbbbbb"},
		{name: "pinned", servers: []string{newer, older, old}, pins: []string{"clip:bbbbbbbb"}, serving: []triton.Contract{contractAt("aaaaaaaa")}, want: "bbbbbbbb", aside: []string{older, old}},
		{name: "another variant is pinned", servers: []string{newer, older, old}, pins: []string{"bert:bbbbbbbb"}, want: "aaaaaaaa", aside: []string{newer}},
		{name: "pinned to what nobody has", servers: []string{newer, old}, pins: []string{"clip:cccccccc"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := triton.DefaultConfig()
			cfg.Addresses, cfg.Checkpoints = test.servers, test.pins
			fleet := newFleet(t, cfg)
			if err := fleet.Resolve(t.Context()); err != nil {
				t.Fatal(err)
			}
			catalog, err := fleet.Catalog(t.Context(), test.serving)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if len(catalog.Contracts) != 0 || len(catalog.Broken) != 1 || !strings.Contains(catalog.Broken[0].Reason, "pins it to the checkpoint cccccccc, and servers have aaaaaaaa, bbbbbbbb") {
					t.Errorf("%+v", catalog)
				}
				return
			}
			if len(catalog.Contracts) != 1 || !strings.HasPrefix(catalog.Contracts[0].Checkpoint, test.want) {
				t.Errorf("contracts %+v, want the checkpoint %s", catalog.Contracts, test.want)
			}
			aside := make(map[string]bool)
			for _, a := range catalog.Aside {
				aside[a.Server] = true
			}
			want := make(map[string]bool)
			for _, server := range test.aside {
				want[server] = true
			}
			if diff := cmp.Diff(want, aside); diff != "" {
				t.Errorf("servers that wait (-want +got):\n%s", diff)
			}
		})
	}
}

// Triton's words about models that it could not load become a reason without
// folders. A model that nobody asked for is no fault.
func TestCatalogNamesBrokenStages(t *testing.T) {
	type state = pb.RepositoryIndexResponse_ModelIndex
	for _, test := range []struct {
		name  string
		index []*state
		want  []triton.Broken
	}{
		{
			"a stage fails",
			[]*state{
				{Name: "refersam_bert"},
				{Name: "refersam_bert_image", Version: "1", State: "READY"},
				{Name: "refersam_bert_text", Version: "1", State: "UNAVAILABLE", Reason: "Internal: Load model from /srv/models/refersam_bert_text/1/model.onnx failed:no\n\nAt:\n  /usr/x.py(1)"},
			},
			[]triton.Broken{{Model: "refersam_bert", Variant: "bert", Stage: "refersam_bert_text", Reason: "Internal: Load model from model.onnx failed:no"}},
		},
		{
			"a stage has no configuration that can be read",
			[]*state{{Name: "refersam_bert"}, {Name: "refersam_bert_image", Version: "1", State: "READY"}, {Name: "refersam_bert_text"}},
			[]triton.Broken{{Model: "refersam_bert", Variant: "bert", Stage: "refersam_bert_text", Reason: "the log of the model server says why"}},
		},
		{
			"the ensemble fails",
			[]*state{{Name: "refersam_bert", Version: "1", State: "UNAVAILABLE", Reason: "no such tensor"}, {Name: "refersam_bert_text", Version: "1", State: "READY"}},
			[]triton.Broken{{Model: "refersam_bert", Variant: "bert", Reason: "it is not loaded: no such tensor"}},
		},
		{
			"it is loading",
			[]*state{{Name: "refersam_bert", Version: "1", State: "LOADING"}},
			[]triton.Broken{{Model: "refersam_bert", Variant: "bert", Reason: "it is not loaded: it is being loaded"}},
		},
		{
			"a stage that two ensembles share fails",
			[]*state{
				{Name: "refersam_photo_bert"}, {Name: "refersam_photo_bert_text", Version: "1", State: "READY"},
				{Name: "refersam_photo_clip"}, {Name: "refersam_photo_clip_text", Version: "1", State: "READY"},
				{Name: "refersam_photo_image", Version: "1", State: "READY"},
				{Name: "refersam_photo_vli", Version: "1", State: "UNAVAILABLE", Reason: "no graph"},
			},
			[]triton.Broken{
				{Model: "refersam_photo_bert", Variant: "photo_bert", Stage: "refersam_photo_vli", Reason: "no graph"},
				{Model: "refersam_photo_clip", Variant: "photo_clip", Stage: "refersam_photo_vli", Reason: "no graph"},
			},
		},
		{
			"a stage that two ensembles share is not there",
			[]*state{
				{Name: "refersam_photo_bert"}, {Name: "refersam_photo_bert_text", Version: "1", State: "READY"},
				{Name: "refersam_photo_clip"}, {Name: "refersam_photo_clip_text", Version: "1", State: "READY"},
				{Name: "refersam_photo_image", Version: "1", State: "READY"},
			},
			[]triton.Broken{
				{Model: "refersam_photo_bert", Variant: "photo_bert", Reason: "it is not loaded: the log of the model server says why"},
				{Model: "refersam_photo_clip", Variant: "photo_clip", Reason: "it is not loaded: the log of the model server says why"},
			},
		},
		{
			"ensembles share stages and none was to be loaded",
			[]*state{{Name: "refersam_photo_bert"}, {Name: "refersam_photo_bert_text"}, {Name: "refersam_photo_image"}},
			nil,
		},
		{"it was not to be loaded", []*state{{Name: "refersam_bert"}, {Name: "refersam_bert_text"}}, nil},
		{"it was unloaded", []*state{{Name: "refersam_bert", Version: "1", State: "UNAVAILABLE", Reason: "unloaded"}, {Name: "refersam_bert_text", Version: "1", State: "READY"}}, nil},
		{"another program's", []*state{{Name: "bert", Version: "1", State: "UNAVAILABLE", Reason: "no"}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &fakeServer{config: ensembleConfig(), stage: &pb.ModelConfig{}, index: test.index}
			catalog, err := fleetOf(t, serveFake(t, "127.0.0.1:0", server)).Catalog(t.Context(), nil)
			if err != nil || len(catalog.Contracts) != 1 || !catalog.Complete {
				t.Fatalf("%+v, error %v", catalog, err)
			}
			for i := range catalog.Broken {
				if reason := catalog.Broken[i].Reason; strings.Contains(reason, "model.onnx") && !strings.Contains(catalog.Broken[i].Detail, "/srv/models/") {
					t.Errorf("the detail of %q is %q", reason, catalog.Broken[i].Detail)
				}
				catalog.Broken[i].Detail = ""
			}
			if diff := cmp.Diff(test.want, catalog.Broken); diff != "" {
				t.Errorf("broken (-want +got):\n%s", diff)
			}
		})
	}
}

// An ensemble without a stage of its own is missed if the stages that it shares are
// loaded for another ensemble. A model beside one loaded ensemble is not missed.
func TestCatalogMissesAnEnsembleThatSharesItsStages(t *testing.T) {
	type state = pb.RepositoryIndexResponse_ModelIndex
	for _, test := range []struct {
		name, loaded string
		steps        []string
		other        string
		want         []triton.Broken
	}{
		{
			"shared", "refersam_photo_clip", []string{"refersam_photo_clip_text", "refersam_photo_image"}, "refersam_photo_bert",
			[]triton.Broken{{Model: "refersam_photo_bert", Variant: "photo_bert", Reason: "it is not loaded: the log of the model server says why"}},
		},
		{"not shared", "refersam_bert", []string{"refersam_bert_text", "refersam_bert_image"}, "refersam_bert_more", nil},
		{"other names", "refersam_bert", []string{"refersam_bert_text", "refersam_bert_image"}, "refersam_clip", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := ensembleConfig()
			config.Name = test.loaded
			config.Parameters["variant"].StringValue = strings.TrimPrefix(test.loaded, triton.ModelPrefix)
			config.EnsembleScheduling.Step = nil
			index := []*state{{Name: test.other}}
			for _, step := range test.steps {
				config.EnsembleScheduling.Step = append(config.EnsembleScheduling.Step, &pb.ModelEnsembling_Step{ModelName: step})
				index = append(index, &state{Name: step, Version: "1", State: "READY"})
			}
			server := &fakeServer{config: config, stage: &pb.ModelConfig{}, index: index}
			catalog, err := fleetOf(t, serveFake(t, "127.0.0.1:0", server)).Catalog(t.Context(), nil)
			if err != nil || len(catalog.Contracts) != 1 {
				t.Fatalf("%+v, error %v", catalog, err)
			}
			if diff := cmp.Diff(test.want, catalog.Broken); diff != "" {
				t.Errorf("broken (-want +got):\n%s", diff)
			}
		})
	}
}

// An answer counts only if the server says the same of its models before and
// afterwards, over one connection.
func TestInferLooksBeforeAndAfter(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(server *fakeServer, config *pb.ModelConfig)
		want   string
	}{
		{"other weights", func(s *fakeServer, c *pb.ModelConfig) {
			c.Parameters["checkpoint"].StringValue = strings.Repeat("1f", 32)
		}, "has the checkpoint 1f1f1f1f"},
		{"another threshold", func(s *fakeServer, c *pb.ModelConfig) { c.Parameters["threshold"].StringValue = "0.9" }, "Threshold:0.9"},
		{"a stage of other weights", func(s *fakeServer, _ *pb.ModelConfig) { s.stage = withCheckpoint("11111111") }, "its stage refersam_fake_image has the checkpoint 11111111"},
		{"another stage of the same weights", func(s *fakeServer, _ *pb.ModelConfig) { s.stage = &pb.ModelConfig{MaxBatchSize: 4} }, "a stage of refersam_fake was loaded anew"},
		{"another version of a stage", func(s *fakeServer, _ *pb.ModelConfig) { s.versions = []string{"1", "10", "9"} }, "a stage of refersam_fake was loaded anew"},
		{"more instances of a stage", func(s *fakeServer, _ *pb.ModelConfig) {
			s.stage = &pb.ModelConfig{InstanceGroup: []*pb.ModelInstanceGroup{{Count: 3}}}
		}, ""},
		{"nothing", func(*fakeServer, *pb.ModelConfig) {}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := fakeConfig(imageSize)
			config.EnsembleScheduling.Step = []*pb.ModelEnsembling_Step{{ModelName: "refersam_fake_image"}}
			server := &fakeServer{config: config, stage: &pb.ModelConfig{}, versions: []string{"1", "9"}}
			server.infer = func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
				server.mu.Lock()
				defer server.mu.Unlock()
				test.change(server, config)
				return goodAnswer(1), nil
			}
			wanted := contractOf(config)
			replica := replicaAt(t, serveFake(t, "127.0.0.1:0", server))
			err := replica.Probe(t.Context(), wanted)
			var fault *triton.ReplicaError
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (!errors.As(err, &fault) || fault.Fault != triton.Replaced || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want a fault %q that says %q", err, triton.Replaced, test.want)
			}
		})
	}
}
