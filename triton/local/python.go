package local

import (
	"bytes"
	"context"
	"debug/elf"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// backends holds our own backends, one folder each.
//
//go:embed backends/*/*.py
var backends embed.FS

// python is an interpreter with the nvidia-pytriton wheel in its virtual
// environment: a tritonserver, its Python backend, and a stub (the program that runs
// a model's Python) for each version of Python.
type python struct {
	executable string
	version    string // "3.11"
	server     string // pytriton/tritonserver in the wheel
	libraries  string // the wheel's shared libraries
	stub       string // for this version
	libpython  string // folder of the shared library that the stub needs
}

// describeScript prints what findPython must know as JSON. It imports none of
// the packages it looks for.
const describeScript = `
import importlib.util, json, os, sys, sysconfig
def folder(package):
    spec = importlib.util.find_spec(package)
    return spec.submodule_search_locations[0] if spec else ""
libdir = sysconfig.get_config_var("LIBDIR") or ""
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "pytriton": folder("pytriton"),
    "missing": [name for name in ("numpy", "onnxruntime") if not folder(name)],
    "library_folders": [
        libdir,
        os.path.join(libdir, sysconfig.get_config_var("MULTIARCH") or ""),
        os.path.join(sys.base_prefix, "lib"),
    ],
}))
`

// findPython asks an interpreter, given by path or by a name on the PATH, what
// it has when it sees only the variables that a server sees. environment names
// those added by the user. Its errors say what to install.
func findPython(ctx context.Context, name string, environment []string) (*python, error) {
	executable, err := exec.LookPath(name)
	if err == nil {
		executable, err = filepath.Abs(executable)
	}
	if err != nil {
		return nil, notInstalled{fmt.Errorf("no python (%w)", err)}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, executable, "-c", describeScript)
	cmd.Env = passedEnvironment(environment)
	cmd.Dir = "/" // Python looks there for modules first, and nobody else can put any there
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, notInstalled{fmt.Errorf("python %s does not run: %w: %s", executable, err, lastLine(stderr.String()))}
	}
	var described struct {
		Version        string
		Pytriton       string
		Missing        []string
		LibraryFolders []string `json:"library_folders"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &described); err != nil {
		return nil, fmt.Errorf("python %s gives no description of itself: %w", executable, err)
	}
	if described.Pytriton == "" {
		return nil, notInstalled{fmt.Errorf("python %s has no wheel nvidia-pytriton, which brings tritonserver", executable)}
	}
	if len(described.Missing) > 0 {
		return nil, notInstalled{fmt.Errorf("python %s has no package %s", executable, strings.Join(described.Missing, ", "))}
	}
	p := &python{
		executable: executable,
		version:    described.Version,
		server:     filepath.Join(described.Pytriton, "tritonserver"),
		libraries:  filepath.Join(filepath.Dir(described.Pytriton), "nvidia_pytriton.libs"),
	}
	if err := p.findStub(); err != nil {
		return nil, err
	}
	return p, p.findLibpython(described.LibraryFolders)
}

func (p *python) findStub() error {
	const name = "triton_python_backend_stub"
	stubs := filepath.Join(p.server, "python_backend_stubs")
	p.stub = filepath.Join(stubs, p.version, name)
	_, err := os.Stat(p.stub)
	if errors.Is(err, fs.ErrNotExist) {
		versions, _ := filepath.Glob(filepath.Join(stubs, "*", name))
		for i, v := range versions {
			versions[i] = filepath.Base(filepath.Dir(v))
		}
		return fmt.Errorf("python %s is version %s, for which nvidia-pytriton has no stub: "+
			"make the virtual environment anew with one of %s", p.executable, p.version, strings.Join(versions, ", "))
	}
	return err
}

// findLibpython finds the libpython that the stub is linked with. The wheel
// leaves it out, and Pythons built without a shared library have none.
func (p *python) findLibpython(folders []string) error {
	file, err := elf.Open(p.stub)
	if err != nil {
		return fmt.Errorf("stub of nvidia-pytriton: %w", err)
	}
	defer file.Close()
	needed, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("stub of nvidia-pytriton: %w", err)
	}
	i := slices.IndexFunc(needed, func(name string) bool { return strings.HasPrefix(name, "libpython") })
	if i < 0 {
		return fmt.Errorf("stub %s of nvidia-pytriton is not linked with a libpython", p.stub)
	}
	folders = append([]string{p.libraries}, folders...)
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, needed[i])); err == nil {
			p.libpython = folder
			return nil
		}
	}
	return fmt.Errorf("python %s comes without the shared library %s: install the package libpython%s, "+
		"or use a Python built with --enable-shared (looked in %s)",
		p.executable, needed[i], p.version, strings.Join(folders, ", "))
}

// installBackends writes the backend directory for p into the empty folder root:
// the wheel's Python backend with p's stub, and our own backends. Files are
// copies because Triton refuses links out of a backend's folder.
func (p *python) installBackends(root string) error {
	wheel := os.DirFS(filepath.Join(p.server, "backends"))
	stub := os.DirFS(filepath.Dir(p.stub))
	ours, err := fs.Sub(backends, "backends")
	if err != nil {
		return err
	}
	err = errors.Join(
		copyTree(root, wheel),
		copyTree(filepath.Join(root, "python"), stub),
		copyTree(root, ours),
	)
	if err != nil {
		return fmt.Errorf("installing Triton's backends in %s: %w", root, err)
	}
	return nil
}

// copyTree copies the files of source into dir, all of them executable.
func copyTree(dir string, source fs.FS) error {
	return fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, path)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copyFile(target, source, path)
	})
}

func copyFile(target string, source fs.FS, path string) error {
	in, err := source.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// environment returns the server's environment: the variables of ours that it
// may see, with the folders where it finds its libraries, and with the
// interpreter that has the models' packages first on the path. threads is the
// number of threads per model.
func (p *python) environment(threads int, more []string) []string {
	return append(passedEnvironment(more),
		"PATH="+prepend("PATH", filepath.Dir(p.executable)),
		"LD_LIBRARY_PATH="+prepend("LD_LIBRARY_PATH", p.libraries, p.libpython),
		fmt.Sprintf("REFERSAM_ONNX_THREADS=%d", threads),
	)
}

// prepend returns the list in an environment variable with folders before it.
func prepend(variable string, folders ...string) string {
	if list := os.Getenv(variable); list != "" {
		folders = append(folders, list)
	}
	return strings.Join(folders, string(os.PathListSeparator))
}

// lastLine returns the last line of s that is not blank: of a Python
// traceback, the error.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
