package tune

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// Change is a change of one file of the repository.
type Change struct {
	Path          string
	Before, After []byte
	// Count is how many instances After has in each group.
	Count int
}

// Changes returns the changes to the files of a repository that give each step its
// number of instances. Files that already do are left out. configName chooses among
// the configurations of a model; the file must be the one that the servers run.
func (s *Servers) Changes(repository, configName string, instances []int) ([]Change, error) {
	var changes []Change
	for i, step := range s.contract.StepNames() {
		path, config, err := triton.ConfigFile(repository, configName, step)
		if err != nil {
			return nil, err
		}
		if err := sameModel(config, s.configs[0][i]); err != nil {
			return nil, fmt.Errorf("%s is not what the servers run: %w", path, err)
		}
		// If the file says nothing, the number on the servers was Triton's choice.
		unsaid := len(config.GetInstanceGroup()) == 0 && instances[i] == countOf(s.configs[0][i])
		if unsaid || hasInstances(config, instances[i]) {
			continue
		}
		before, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		after, err := SetInstances(before, instances[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		changes = append(changes, Change{path, before, after, instances[i]})
	}
	return changes, nil
}

// hasInstances reports whether a configuration itself sets this number of
// instances.
func hasInstances(config *pb.ModelConfig, count int) bool {
	groups := config.GetInstanceGroup()
	return len(groups) > 0 && !slices.ContainsFunc(groups, func(g *pb.ModelInstanceGroup) bool { return int(g.GetCount()) != count })
}

// sameModel reports how a file differs from the configuration that a server runs,
// in a field that any file for the same model would share.
func sameModel(file, served *pb.ModelConfig) error {
	if file.GetBackend() != "" && file.GetBackend() != served.GetBackend() {
		return fmt.Errorf("its backend is %s, but the servers' is %s; choose the file with REFERSAM_TRITON_CONFIG_NAME", file.GetBackend(), served.GetBackend())
	}
	if file.GetPlatform() != "" && file.GetPlatform() != served.GetPlatform() {
		return fmt.Errorf("its platform is %s, but the servers' is %s; choose the file with REFERSAM_TRITON_CONFIG_NAME", file.GetPlatform(), served.GetPlatform())
	}
	return nil
}

// Write makes all changes or none. It first writes every file beside its place, and
// then renames them into their places. If that fails half way, it writes the old
// content of the renamed files back.
func Write(changes []Change) (err error) {
	var prepared []string
	defer func() {
		for _, name := range prepared {
			if removeErr := os.Remove(name); !errors.Is(removeErr, fs.ErrNotExist) {
				err = errors.Join(err, removeErr)
			}
		}
	}()
	for _, c := range changes {
		name, err := writeBeside(c.Path, c.After)
		if err != nil {
			return err
		}
		prepared = append(prepared, name)
	}
	for i, c := range changes {
		if err := os.Rename(prepared[i], c.Path); err != nil {
			return errors.Join(err, undo(changes[:i]))
		}
	}
	return nil
}

// undo restores the old content of files.
func undo(changes []Change) error {
	var errs []error
	for _, c := range changes {
		name, err := writeBeside(c.Path, c.Before)
		if err == nil {
			err = os.Rename(name, c.Path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// writeBeside writes a file in the folder of path, with its mode, and returns
// its name.
func writeBeside(path string, text []byte) (name string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(info.Mode().Perm()), file.Sync(), file.Close())
	return file.Name(), err
}
