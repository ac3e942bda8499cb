package triton

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/refersam/refersam"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// Catalog is what the servers of a fleet have.
type Catalog struct {
	// Contracts describe the ensembles that can be served, one for each model,
	// by name.
	Contracts []Contract
	// Broken are the ensembles that no server can serve, by name.
	Broken []Broken
	// Aside are the servers that have another contract of a model than the one
	// in Contracts. They are not sent the model's rows.
	Aside []Aside
	// Complete says that every server has answered: what is not in the catalog
	// is on no server.
	Complete bool
}

// Broken is an ensemble that cannot be served.
type Broken struct {
	Model   string
	Variant string
	// Stage is the model that is at fault: one of the ensemble's, or empty.
	Stage string
	// Reason says what is wrong with it. It holds no addresses and no folders.
	Reason string
	// Detail is Reason with everything that the server said, for logs.
	Detail string
	// Misfit says that this program and the ensemble do not fit together, which
	// does not pass by itself.
	Misfit bool
}

// String says what is broken and why.
func (b *Broken) String() string {
	if b.Stage == "" {
		return b.Reason
	}
	return fmt.Sprintf("its stage %s is not loaded: %s", b.Stage, b.Reason)
}

// Aside is a server that has another contract of a model than is served.
type Aside struct {
	Server string // address
	Contract
}

// Catalog describes every ensemble that is loaded and named "refersam_"
// something. serving are the contracts that are served now.
//
// Servers that cannot be reached are passed over as long as one can. Where
// servers differ about a model, the contract is chosen
//   - that Config.Checkpoints pins, and no other;
//   - else that is served now, as long as one server has it;
//   - else that most servers have; of several, the one with the highest version.
//
// It is an error when no server can be asked or none has such an ensemble,
// broken ones included. CodeNotReady: there is no replica yet.
func (f *Fleet) Catalog(ctx context.Context, serving []Contract) (Catalog, error) {
	replicas := f.Replicas()
	if len(replicas) == 0 {
		return Catalog{}, f.empty()
	}
	answers := make([]described, len(replicas))
	var wait sync.WaitGroup
	for i, r := range replicas {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, f.cfg.MetadataTimeout)
			defer cancel()
			answers[i] = r.ensembles(ctx)
		})
	}
	wait.Wait()
	return f.choose(answers, serving)
}

// Contracts returns the contracts that a fleet serves when nothing is served yet.
// It is an error when there are none.
func (f *Fleet) Contracts(ctx context.Context) ([]Contract, error) {
	catalog, err := f.Catalog(ctx, nil)
	if err != nil {
		return nil, err
	}
	if len(catalog.Contracts) == 0 {
		return nil, catalog.Err()
	}
	return catalog.Contracts, nil
}

// Err says why nothing in the catalog can be served: with CodeNotReady if that
// may pass by itself.
func (c *Catalog) Err() error {
	var reasons []string
	passing := false
	for i := range c.Broken {
		reasons = append(reasons, fmt.Sprintf("model %s: %s", c.Broken[i].Model, c.Broken[i].String()))
		passing = passing || !c.Broken[i].Misfit
	}
	all := strings.Join(reasons, "; ")
	if !passing {
		return errors.New(all)
	}
	return refersam.Errorf(refersam.CodeNotReady, "No model can be used: %s.", strings.TrimSuffix(all, "."))
}

// described is what one server says of its ensembles.
type described struct {
	server    string
	contracts []Contract
	broken    []Broken
	err       error // it could not be asked, or has none
}

// choose makes a catalog of what all servers say.
func (f *Fleet) choose(answers []described, serving []Contract) (Catalog, error) {
	votes := make(map[string]map[Contract]int) // by model
	broken := make(map[string]Broken)
	catalog := Catalog{Complete: true}
	var failure error
	for _, a := range answers {
		if a.err != nil {
			failure = a.err
			catalog.Complete = catalog.Complete && refersam.ErrorCode(a.err) == refersam.CodeNotReady
		}
		for _, contract := range a.contracts {
			if votes[contract.Model] == nil {
				votes[contract.Model] = make(map[Contract]int)
			}
			votes[contract.Model][contract]++
		}
		for _, b := range a.broken {
			if _, ok := broken[b.Model]; !ok {
				broken[b.Model] = b
			}
		}
	}
	for model, candidates := range votes {
		chosen, ok := f.elect(candidates, serving)
		if !ok {
			broken[model] = f.unpinned(candidates)
			continue
		}
		delete(broken, model) // on another server it is well
		catalog.Contracts = append(catalog.Contracts, chosen)
		for _, a := range answers {
			for _, contract := range a.contracts {
				if contract.Model == model && contract != chosen {
					catalog.Aside = append(catalog.Aside, Aside{a.server, contract})
				}
			}
		}
	}
	if len(catalog.Contracts) == 0 && len(broken) == 0 {
		return Catalog{}, failure
	}
	catalog.Broken = slices.SortedFunc(maps.Values(broken), func(a, b Broken) int { return strings.Compare(a.Model, b.Model) })
	slices.SortFunc(catalog.Contracts, func(a, b Contract) int { return strings.Compare(a.Model, b.Model) })
	slices.SortFunc(catalog.Aside, func(a, b Aside) int {
		return cmp.Or(strings.Compare(a.Server, b.Server), strings.Compare(a.Model, b.Model))
	})
	return catalog, nil
}

// elect chooses one of the contracts of a model, given how many servers have
// each; false: the one that is pinned is not among them.
func (f *Fleet) elect(candidates map[Contract]int, serving []Contract) (Contract, bool) {
	var best Contract
	most := 0
	for contract, servers := range candidates {
		if !strings.HasPrefix(contract.Checkpoint, f.pins[contract.Variant]) {
			continue
		}
		if slices.Contains(serving, contract) {
			return contract, true
		}
		// The last two make several gateways, and one that starts again, choose alike.
		if most == 0 || cmp.Or(
			cmp.Compare(servers, most),
			cmp.Compare(contract.version(), best.version()),
			cmp.Compare(fmt.Sprint(contract), fmt.Sprint(best)),
		) > 0 {
			best, most = contract, servers
		}
	}
	return best, most > 0
}

// version is Version as a number.
func (c *Contract) version() int {
	n, _ := strconv.Atoi(c.Version) // a server says "1"
	return n
}

// unpinned says that no server has the pinned checkpoint of a variant.
func (f *Fleet) unpinned(candidates map[Contract]int) Broken {
	var b Broken
	var has []string
	for contract := range candidates {
		b.Model, b.Variant = contract.Model, contract.Variant
		has = append(has, short(contract.Checkpoint))
	}
	slices.Sort(has)
	b.Reason = fmt.Sprintf("REFERSAM_CHECKPOINTS pins it to the checkpoint %s, and servers have %s",
		short(f.pins[b.Variant]), strings.Join(slices.Compact(has), ", "))
	return b
}

// ensembles describes the ensembles of r. It is CodeNotReady when r has none,
// broken ones included.
func (r *Replica) ensembles(ctx context.Context) described {
	d := described{server: r.name}
	stub := r.stub()
	index, err := stub.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
	if err != nil {
		d.err = r.failure(ctx, "", "listing models", err)
		return d
	}
	ready := make(map[string]int)
	for _, m := range index.GetModels() {
		if version, err := strconv.Atoi(m.GetVersion()); err == nil && m.GetState() == stateReady && strings.HasPrefix(m.GetName(), ModelPrefix) {
			ready[m.GetName()] = max(ready[m.GetName()], version)
		}
	}
	used := make(map[string]bool) // models that are stages of a loaded ensemble
	for name, number := range ready {
		version := strconv.Itoa(number)
		config, err := stub.ModelConfig(ctx, &pb.ModelConfigRequest{Name: name, Version: version})
		if err != nil {
			// It was unloaded, or the server was lost, since the index was made.
			d.err = r.failure(ctx, name, "reading the configuration", err)
			return d
		}
		if config.GetConfig().GetEnsembleScheduling() == nil {
			continue
		}
		used[name] = true
		for _, step := range config.GetConfig().GetEnsembleScheduling().GetStep() {
			used[step.GetModelName()] = true
		}
		contract, err := ParseContract(config.GetConfig())
		if err != nil {
			d.broken = append(d.broken, Broken{
				Model: name, Variant: strings.TrimPrefix(name, ModelPrefix), Misfit: true,
				Reason: strings.ReplaceAll(strings.ReplaceAll(err.Error(), "model "+name+": ", ""), "\n", "; "),
			})
			continue
		}
		contract.Version = version
		d.contracts = append(d.contracts, contract)
	}
	d.broken = append(d.broken, brokenEnsembles(index.GetModels(), used)...)
	if len(d.contracts) == 0 && len(d.broken) == 0 {
		d.err = r.fault(NotReady, "", fmt.Errorf("no ensemble named %s* is ready", ModelPrefix))
	}
	return d
}

const (
	stateReady       = "READY"
	stateUnavailable = "UNAVAILABLE"
	// reasonUnloaded is Triton's reason for a model that was unloaded by request.
	reasonUnloaded = "unloaded"
)

// brokenEnsembles finds the ensembles that a server was to load and has not.
// used are the loaded ensembles and their stages.
//
// Triton gives the reason for a stage that it could not load, and lists the
// ensemble without a state or a reason. It does not list which models are the
// stages of an ensemble, so a stage is known by its name: the ensemble's, "_" and
// more. A stage that several ensembles share has what their names begin with, "_"
// and one word more: refersam_photo_image for refersam_photo_bert. Models that no
// client or flag asked for are listed without a state too, so an ensemble is
// broken only if one of its stages has a state, or if it has no stage of its own
// while stages that it shares are loaded.
func brokenEnsembles(models []*pb.RepositoryIndexResponse_ModelIndex, used map[string]bool) []Broken {
	states := make(map[string]*pb.RepositoryIndexResponse_ModelIndex)
	for _, m := range models {
		name := m.GetName()
		if strings.HasPrefix(name, ModelPrefix) && !used[name] && states[name].GetState() != stateReady { // one version that is ready is enough
			states[name] = m
		}
	}
	stages := make(map[string][]string) // by ensemble
	var roots []string
	for name := range states {
		if ensemble := longestPrefix(states, name); ensemble != "" {
			stages[ensemble] = append(stages[ensemble], name)
		} else {
			roots = append(roots, name)
		}
	}
	shared := make(map[string][]string) // by stage, the ensembles
	for _, name := range roots {
		if stages[name] == nil {
			shared[name] = sharers(stages, name)
		}
	}
	for name, ensembles := range shared {
		if ensembles == nil {
			stages[name] = []string{}
		}
		for _, ensemble := range ensembles {
			stages[ensemble] = append(stages[ensemble], name)
		}
	}
	var all []Broken
	for name, names := range stages {
		ensemble := states[name]
		if ensemble.GetState() == stateReady || ensemble.GetReason() == reasonUnloaded {
			continue // it is no ensemble, or nobody wants it
		}
		b := Broken{Model: name, Variant: strings.TrimPrefix(name, ModelPrefix)}
		wanted := ensemble.GetState() != "" || len(names) == 0 && sharesLoaded(used, name)
		slices.Sort(names)
		for _, stage := range names {
			if stages[stage] != nil {
				continue // an ensemble of its own
			}
			state := states[stage]
			wanted = wanted || state.GetState() != ""
			if state.GetState() != stateReady && (b.Stage == "" || b.Reason == reasonSilent) {
				b.Stage, b.Reason, b.Detail = stage, reasonOf(state), state.GetReason()
			}
		}
		if b.Stage == "" {
			b.Reason, b.Detail = "it is not loaded: "+reasonOf(ensemble), ensemble.GetReason()
		}
		if wanted {
			all = append(all, b)
		}
	}
	return all
}

// longestPrefix returns the longest name in states that, with "_" behind it,
// begins name.
func longestPrefix(states map[string]*pb.RepositoryIndexResponse_ModelIndex, name string) string {
	longest := ""
	for other := range states {
		if strings.HasPrefix(name, other+"_") && len(other) > len(longest) {
			longest = other
		}
	}
	return longest
}

// sharers returns the ensembles among the keys of stages that share a model which
// has no stages of its own: their names begin like its name without the last word.
func sharers(stages map[string][]string, name string) []string {
	begin := sharedBegin(name)
	var ensembles []string
	for ensemble := range stages {
		if begin != "" && strings.HasPrefix(ensemble, begin) {
			ensembles = append(ensembles, ensemble)
		}
	}
	return ensembles
}

// sharesLoaded reports whether a model's name begins like the names of loaded
// models, with one word more: these are stages that an ensemble of that name shares.
func sharesLoaded(used map[string]bool, name string) bool {
	begin := sharedBegin(name)
	if begin == "" || used[strings.TrimSuffix(begin, "_")] {
		return false // they are the stages of one ensemble
	}
	for other := range used {
		if sharedBegin(other) == begin {
			return true
		}
	}
	return false
}

// sharedBegin returns what the names of ensembles begin with that share a stage of
// this name, or "" for a name of one word, which no ensembles share.
func sharedBegin(stage string) string {
	begin := stage[:strings.LastIndex(stage, "_")+1]
	if begin == ModelPrefix {
		return ""
	}
	return begin
}

// reasonSilent is the reason for a model that Triton gives no reason for.
const reasonSilent = "the log of the model server says why"

var absolutePath = regexp.MustCompile(`(?:/[^\s/'":,;()\[\]]+){2,}`)

// reasonOf is why a server has not loaded a model, in one line without folders.
func reasonOf(m *pb.RepositoryIndexResponse_ModelIndex) string {
	if m.GetState() == "LOADING" {
		return "it is being loaded"
	}
	reason, _, _ := strings.Cut(strings.TrimSpace(m.GetReason()), "\n")
	reason = absolutePath.ReplaceAllStringFunc(reason, path.Base)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	if reason == "" {
		return reasonSilent
	}
	return reason
}

// maxReason bounds what a server can say in a Reason, in bytes.
const maxReason = 300
