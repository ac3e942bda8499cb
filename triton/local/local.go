// Package local runs a Triton server as a child of this process: it finds the
// server's wheel, builds its folders, starts it in a sandbox, forwards its log, and
// leaves nothing behind.
package local

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/refersam/refersam/triton"
)

const (
	// workDirBeside is WorkDir unless the configuration names it, in the folder
	// that holds the repository.
	workDirBeside = "var/triton"

	// drainTime is how long a server that stops waits for inferences under way.
	drainTime = 5 * time.Second
)

// Config says how to start a Triton server on this machine.
type Config struct {
	// Repository is the folder of the models. Default "model_repository".
	Repository string `env:"REFERSAM_MODEL_REPOSITORY"`
	// Python is the interpreter of the virtual environment that holds the
	// wheels nvidia-pytriton and onnxruntime. Default: the first that holds them
	// of .venv/bin/python beside the repository, beside the program or its
	// folder and in the working directory, and of the environment VIRTUAL_ENV.
	Python string `env:"REFERSAM_PYTHON"`
	// WorkDir is where the server's backends are put together, in a folder of
	// their own for as long as it runs. Default: var/triton beside the
	// repository.
	WorkDir string `env:"REFERSAM_TRITON_WORK_DIR"`
	// ConfigName chooses configs/<name>.pbtxt of each model that has one, in
	// place of its config.pbtxt. Default "cpu".
	ConfigName string `env:"REFERSAM_TRITON_CONFIG_NAME"`
	// SocketDir is the folder of the server's gRPC socket, which is called
	// "grpc:1". Only this user may be able to enter it; it is made if it does
	// not exist. Default: a new folder in $XDG_RUNTIME_DIR or in the temporary
	// folder.
	SocketDir string `env:"REFERSAM_TRITON_SOCKET_DIR"`
	// Environment names variables that the server sees beside those that every
	// server sees: for backends and models that need them. Default: none.
	Environment []string `env:"REFERSAM_TRITON_ENV"`
	// Threads is how many threads a model may use. Default 0, the number of
	// CPUs.
	Threads int `env:"REFERSAM_TRITON_THREADS"`
	// StartTimeout is how long the server may take until its models answer.
	// Default 2m.
	StartTimeout time.Duration `env:"REFERSAM_TRITON_START_TIMEOUT"`
	// Logger receives what the server writes. Default: nobody.
	Logger *slog.Logger `env:"-"`
	// ModelControl makes the server load and unload models when a client asks
	// for it, as Replica.Load does. Models are programs, so clients can then run
	// code as this user. Default false.
	ModelControl bool `env:"-"`

	// original is the repository that Repository is a copy of; empty for none.
	original string
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Repository: "model_repository", ConfigName: "cpu", StartTimeout: 2 * time.Minute}
}

var (
	configNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	variablePattern   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// ourVariables starts the names of this program's settings. Some are secrets.
const ourVariables = "REFERSAM_"

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.Repository == "" {
		errs = append(errs, errors.New(`REFERSAM_MODEL_REPOSITORY is "", allowed: the name of a folder`))
	}
	if !configNamePattern.MatchString(c.ConfigName) {
		errs = append(errs, fmt.Errorf("REFERSAM_TRITON_CONFIG_NAME is %q, allowed: letters, digits, '_' and '-'", c.ConfigName))
	}
	for _, name := range c.Environment {
		switch {
		case !variablePattern.MatchString(name):
			errs = append(errs, fmt.Errorf("REFERSAM_TRITON_ENV has %q, allowed: names of variables, separated by commas", name))
		case strings.HasPrefix(name, ourVariables):
			errs = append(errs, fmt.Errorf("REFERSAM_TRITON_ENV has %s, a setting that tritonserver must not see, allowed: names that do not begin with %s", name, ourVariables))
		}
	}
	if c.Threads < 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_TRITON_THREADS is %d, allowed: 0 or more", c.Threads))
	}
	if c.StartTimeout <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_TRITON_START_TIMEOUT is %v, allowed: more than 0s", c.StartTimeout))
	}
	return errors.Join(errs...)
}

// Server is a Triton server that runs as a child of this process, on Linux, and
// dies with this process, however that ends. Only this user can talk to it: it
// listens on a unix socket in a private folder, and nowhere else. It loads
// nothing by request, sees no variable that may be a secret, and creates no file
// or shared memory that other users can open.
//
// The server is the one of the nvidia-pytriton wheel, 24.10: fit for
// development, demonstration and tests, too old to face a network.
type Server struct {
	prefix  string // of its regions in triton.SharedMemory
	folders []*privateFolder
	run     *privateFolder // one of folders: of the socket, and where it works
	cmd     *exec.Cmd
	log     *serverLog
	closing atomic.Bool
	done    chan struct{}
	err     error // valid once done is closed
}

// Start starts a server with every ensemble of the repository that is
// named "refersam_" something and returns once each has answered a real
// inference. One that cannot be loaded or does not answer is logged, and is an
// error only if no other answers. Errors say what to do about them.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	started := time.Now()
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.StartTimeout,
		fmt.Errorf("tritonserver was not ready within %v: REFERSAM_TRITON_START_TIMEOUT gives it longer", cfg.StartTimeout))
	defer cancel()

	repository, err := filepath.Abs(cfg.Repository)
	if err != nil {
		return nil, err
	}
	ensembles, broken, err := triton.Ensembles(repository, cfg.ConfigName)
	if err != nil {
		return nil, err
	}
	for _, cause := range broken {
		logger.Error("a model cannot be loaded; the others serve", "cause", cause)
	}
	py, err := chooseInterpreter(ctx, cmp.Or(cfg.original, repository), cfg.Python, cfg.Environment)
	if err != nil {
		return nil, err
	}
	if err := checkSharedMemory(); err != nil {
		return nil, err
	}
	workDir, err := filepath.Abs(beside(repository, cfg.WorkDir, workDirBeside))
	if err != nil {
		return nil, err
	}
	removeStale(workDir, logger)
	for attempt := 1; ; attempt++ {
		l, err := py.startServer(ctx, &cfg, repository, workDir, ensembles, logger)
		if err == nil {
			logger.Info("tritonserver is ready", "address", l.Address(), "models", ensembles,
				"took", time.Since(started).Round(time.Millisecond))
			return l, nil
		}
		if attempt == startAttempts || ctx.Err() != nil || !strings.Contains(err.Error(), startCrash) {
			return nil, errors.Join(append(broken, err)...)
		}
		logger.Warn("tritonserver crashed while it started, and is started again", "cause", err)
	}
}

// Release 24.10 aborts now and then while it starts on busy cores, with a lock
// of the memory that it shares with its Python processes.
const (
	startCrash    = "boost::interprocess::lock_exception"
	startAttempts = 3
)

// startServer starts a server of the wheel and returns once every ensemble has
// answered a real inference.
func (p *python) startServer(
	ctx context.Context, cfg *Config, repository, workDir string, ensembles []string, logger *slog.Logger,
) (*Server, error) {
	l := &Server{
		prefix: "refersam-" + rand.Text() + "-",
		done:   make(chan struct{}),
	}
	if err := l.makeFolders(p, cfg, repository, workDir, ensembles); err != nil {
		return nil, errors.Join(err, l.removeFolders())
	}
	models := filepath.Join(l.run.path, modelsName)
	l.log = &serverLog{logger: logger, paths: strings.NewReplacer(models+"/", repository+"/")}
	args := []string{
		"--model-repository=" + models,
		"--backend-directory=" + l.folders[0].path,
		"--model-config-name=" + cfg.ConfigName,
		"--disable-auto-complete-config",
		"--exit-on-error=false", // one ensemble that cannot be loaded is no reason to serve no other
		"--backend-config=python,shm-region-prefix-name=" + l.prefix,
		"--allow-http=false",
		"--allow-metrics=false",
		"--grpc-address=" + triton.SocketScheme + filepath.Join(l.run.path, socketName),
		"--grpc-port=" + socketPort, // without one it would take 8001
		fmt.Sprintf("--exit-timeout-secs=%d", int(drainTime.Seconds())),
	}
	if cfg.ModelControl {
		args = append(args, "--model-control-mode=explicit")
		for _, name := range ensembles {
			args = append(args, "--load-model="+name)
		}
	} else {
		args = append(args, "--model-control-mode=none")
	}
	threads := cfg.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	l.cmd = privateCommand(filepath.Join(p.server, "bin", "tritonserver"), args...)
	l.cmd.Env = p.environment(threads, cfg.Environment)
	// Python looks for modules there first, so it must not be a folder that
	// other users can write to.
	l.cmd.Dir = l.run.path
	if err := l.start(); err != nil {
		return nil, errors.Join(err, l.removeFolders())
	}
	if err := l.awaitReady(ctx, ensembles); err != nil {
		return nil, errors.Join(err, l.kill())
	}
	return l, nil
}

// makeFolders makes the folders of l and what the server finds in them.
func (l *Server) makeFolders(p *python, cfg *Config, repository, workDir string, ensembles []string) error {
	backends, err := newBackendsFolder(workDir)
	if err != nil {
		return err
	}
	l.folders = append(l.folders, backends)
	if err := p.installBackends(backends.path); err != nil {
		return err
	}
	if l.run, err = newRunFolder(cfg.SocketDir); err != nil {
		return err
	}
	l.folders = append(l.folders, l.run)
	return linkModels(filepath.Join(l.run.path, modelsName), repository, cfg.ConfigName, ensembles)
}

func (l *Server) removeFolders() error {
	var errs []error
	for _, folder := range l.folders {
		errs = append(errs, folder.remove())
	}
	return errors.Join(errs...)
}

// newBackendsFolder makes the folder of a server's backends below workDir.
func newBackendsFolder(workDir string) (*privateFolder, error) {
	err := os.MkdirAll(workDir, 0o700)
	if err == nil {
		err = checkParents(workDir, false)
	}
	var folder *privateFolder
	if err == nil {
		folder, err = newPrivateFolder(workDir, backendsPrefix)
	}
	if err != nil {
		return nil, fmt.Errorf("folder of Triton's backends, name another in REFERSAM_TRITON_WORK_DIR: %w", err)
	}
	return folder, nil
}

// removeStale removes the folders that processes have left when they were killed.
func removeStale(workDir string, logger *slog.Logger) {
	removed, err := removeStaleFolders(workDir, backendsPrefix)
	for _, parent := range runParents() {
		paths, parentErr := removeStaleFolders(parent, runPrefix)
		removed, err = append(removed, paths...), errors.Join(err, parentErr)
	}
	if len(removed) > 0 || err != nil {
		logger.Info("removed folders of tritonservers that were killed", "folders", removed, "error", err)
	}
}

// linkModels makes a folder with links to the ensembles and to the models that
// are their steps. A server that loads nothing by request loads all that is in
// its repository, and the user's may have more.
func linkModels(dir, repository, configName string, ensembles []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	models, err := unreadableModels(repository, configName)
	if err != nil {
		return err
	}
	models = append(models, ensembles...)
	slices.Sort(models)
	models = slices.Compact(models)
	for i := 0; i < len(models); i++ {
		_, config, err := triton.ConfigFile(repository, configName, models[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue // the server says which ensemble lacks it
		}
		// A configuration that cannot be read is the server's to complain about.
		if err := os.Symlink(filepath.Join(repository, models[i]), filepath.Join(dir, models[i])); err != nil {
			return err
		}
		for _, step := range config.GetEnsembleScheduling().GetStep() {
			if name := step.GetModelName(); name == filepath.Base(name) && !slices.Contains(models, name) {
				models = append(models, name)
			}
		}
	}
	return nil
}

// unreadableModels returns the names of the models with an unreadable
// configuration, and the names of their stages if they are ensembles. The
// server cannot load these models, but it lists them. A broken ensemble is
// therefore not mistaken for a missing ensemble.
func unreadableModels(repository, configName string) ([]string, error) {
	folders, err := filepath.Glob(filepath.Join(repository, triton.ModelPrefix+"*"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, folder := range folders {
		if _, _, err := triton.ConfigFile(repository, configName, filepath.Base(folder)); err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, other := range folders {
			if other == folder || strings.HasPrefix(other, folder+"_") {
				names = append(names, filepath.Base(other))
			}
		}
	}
	return names, nil
}

// Address returns the server's gRPC address, as Fleet.Add takes it.
func (l *Server) Address() string { return triton.SocketScheme + l.run.socket() }

// PID is the number of the server's process.
func (l *Server) PID() int { return l.cmd.Process.Pid }

// Done is closed when the server has ended and nothing of it is left.
func (l *Server) Done() <-chan struct{} { return l.done }

// Err returns why the server ended: nil while it runs and when Close ended it.
func (l *Server) Err() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

// Close makes the server finish its inferences and stop, and waits until
// nothing of it is left. When ctx ends first it kills the server and says so.
// It may be called again, and after the server has ended by itself.
func (l *Server) Close(ctx context.Context) error {
	l.closing.Store(true)
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(fmt.Errorf("stopping tritonserver: %w", err), l.kill())
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("tritonserver did not stop in time and was killed: %w", ctx.Err()), l.kill())
	}
}

// kill ends the server at once and waits until nothing of it is left.
func (l *Server) kill() error {
	l.closing.Store(true)
	if err := l.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing tritonserver: %w", err)
	}
	<-l.done
	return nil
}

// start starts the process and the goroutines that look after it.
//
// The processes that run the Python models are children of the server and
// share its process group and its end of the log's pipe.
func (l *Server) start() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	l.cmd.Stdout, l.cmd.Stderr = write, write
	l.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own: Ctrl-C in a terminal must reach this process
		// alone, which then stops the server after its last request.
		Setpgid: true,
		// The kernel kills the server when this process dies, be it by SIGKILL.
		Pdeathsig: syscall.SIGKILL,
	}
	started := make(chan error)
	go func() {
		// To the kernel the parent is the thread that forked, not the process:
		// Pdeathsig would fire as soon as Go retires that thread. So it stays
		// with this goroutine, which outlives the server.
		// It is never unlocked, so that the thread ends with the goroutine and
		// its filter of system calls with the thread.
		runtime.LockOSThread()
		if err := keepModes(); err != nil {
			l.log.logger.Warn("other users of this machine can read pictures in /dev/shm while models work on them:"+
				" the kernel does not let tritonserver's files be private", "cause", err)
		}
		err := l.cmd.Start()
		write.Close()
		var release func()
		if err == nil {
			if release, err = l.guard(); err != nil {
				_ = syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL)
				_ = l.cmd.Wait()
			}
		}
		started <- err
		if err != nil {
			return
		}
		logged := make(chan struct{})
		go func() {
			defer close(logged)
			l.log.forward(read)
		}()
		exit := l.cmd.Wait()
		// Whatever is left of the group works for nobody any more. The pipe
		// ends, and the shared memory is nobody's, when all of it is gone.
		_ = syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL)
		<-logged
		read.Close()
		l.err = l.ending(exit, errors.Join(l.removeSharedMemory(), l.removeFolders()))
		release()
		close(l.done)
	}()
	if err := <-started; err != nil {
		read.Close()
		return fmt.Errorf("starting tritonserver: %w", err)
	}
	return nil
}

// guard starts a process that ends the server's group and removes its shared
// memory and its folders when this process dies, be it by SIGKILL, and returns
// what ends the guard. The kernel sees to the server itself, but one of its Python processes
// that holds an answer just then would wait for ever for the server to take it.
func (l *Server) guard() (release func(), err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	guard := exec.Command("/bin/sh", "-c", `cat; kill -s KILL -- "-$1"; rm -f -- "$2"*; shift 2; rm -rf -- "$@"`, "sh",
		strconv.Itoa(l.cmd.Process.Pid), filepath.Join(triton.SharedMemory, l.prefix))
	for _, folder := range l.folders {
		if folder.keep {
			guard.Args = append(guard.Args, folder.entries()...)
		} else {
			guard.Args = append(guard.Args, folder.path)
		}
	}
	guard.Env = []string{"PATH=" + os.Getenv("PATH")}
	guard.Dir = "/"
	guard.Stdin = read // ends with this process, which has the only other end
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := guard.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("guard of tritonserver: %w", err), write.Close())
	}
	return func() {
		_ = syscall.Kill(-guard.Process.Pid, syscall.SIGKILL)
		_ = guard.Wait()
		write.Close()
	}, nil
}

// ending says why the server ended, given how its process exited.
func (l *Server) ending(exit, cleanup error) error {
	if l.closing.Load() {
		return cleanup
	}
	reason := "it exited without a complaint"
	if exit != nil {
		reason = exit.Error()
	}
	if complaint := l.log.lastComplaint(); complaint != "" {
		reason += ": " + complaint
	}
	return errors.Join(fmt.Errorf("tritonserver ended: %s", reason), cleanup)
}

// removeSharedMemory removes what killed processes could not remove.
func (l *Server) removeSharedMemory() error {
	regions, err := filepath.Glob(filepath.Join(triton.SharedMemory, l.prefix+"*"))
	for _, region := range regions {
		if removeErr := os.Remove(region); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// awaitReady returns nil once every ensemble has answered a real inference.
func (l *Server) awaitReady(ctx context.Context, ensembles []string) error {
	if err := l.awaitListener(ctx); err != nil {
		return err
	}
	cfg := triton.DefaultConfig()
	cfg.SharedMemory = triton.SharedMemoryOff
	fleet, err := triton.NewFleet(cfg, l.log.logger)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if err := fleet.Add(l.Address()); err != nil {
		return err
	}
	catalog, err := fleet.Catalog(ctx, nil)
	if err != nil {
		return l.startError(ctx, err)
	}
	var failures []error
	for _, name := range ensembles {
		if err := l.probeIn(ctx, fleet, &catalog, name); err != nil {
			if ctx.Err() != nil {
				return l.startError(ctx, err)
			}
			l.log.logger.Error("an ensemble does not answer; the others serve", "model", name, "cause", err)
			failures = append(failures, err)
		}
	}
	if len(failures) == len(ensembles) {
		return l.startError(ctx, errors.Join(failures...))
	}
	return nil
}

// probeIn does a real inference on an ensemble, or says why that cannot be done.
func (l *Server) probeIn(ctx context.Context, fleet *triton.Fleet, catalog *triton.Catalog, name string) error {
	for i := range catalog.Contracts {
		if c := &catalog.Contracts[i]; c.Model == name {
			return fleet.Probe(ctx, c)
		}
	}
	for i := range catalog.Broken {
		if b := &catalog.Broken[i]; b.Model == name {
			return fmt.Errorf("model %s: %s (%s)", name, b.String(), l.log.paths.Replace(strings.TrimSpace(b.Detail)))
		}
	}
	return fmt.Errorf("model %s: tritonserver has not loaded it; its log says why", name)
}

// awaitListener returns nil once the server accepts connections, which is
// after it has loaded its models.
func (l *Server) awaitListener(ctx context.Context) error {
	dialer := net.Dialer{Timeout: time.Second}
	for {
		conn, err := dialer.DialContext(ctx, "unix", l.run.socket())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-l.done:
			return l.startError(ctx, err)
		case <-ctx.Done():
			return l.startError(ctx, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// startError explains err, which a server that is starting caused: if it has
// ended, by that.
func (l *Server) startError(ctx context.Context, err error) error {
	select {
	case <-l.done:
		return l.err
	default:
	}
	// A call under way has a timer of its own for the deadline of ctx, and may
	// notice it first.
	if deadline, ok := ctx.Deadline(); ok && errors.Is(err, context.DeadlineExceeded) && time.Until(deadline) < triton.TimerSkew {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("tritonserver runs but its models do not answer: %w", err)
}

// At returns c for a copy of its repository elsewhere, with the Python and the
// WorkDir that c means. A server on the copy has a socket of its own, because
// SocketDir may be in use.
func (c Config) At(repository string) (Config, error) {
	original, err := filepath.Abs(c.Repository)
	if err != nil {
		return Config{}, err
	}
	c.original = original
	c.WorkDir = beside(original, c.WorkDir, workDirBeside)
	c.Repository, c.SocketDir = repository, ""
	return c, nil
}

// beside returns path, or if that is empty name in the folder that holds
// repository.
func beside(repository, path, name string) string {
	if path == "" {
		return filepath.Join(filepath.Dir(repository), name)
	}
	return path
}

// checkSharedMemory reports whether models can be given shared memory.
func checkSharedMemory() error {
	free, err := freeSharedMemory()
	if err != nil {
		return err
	}
	if free < triton.MinSharedMemory {
		return fmt.Errorf("%s has %d MiB free, Triton's Python models need %d MiB: "+
			"remove what is left there, or give the container more (docker run --shm-size=256m)",
			triton.SharedMemory, free>>20, triton.MinSharedMemory>>20)
	}
	return nil
}

func freeSharedMemory() (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(triton.SharedMemory, &stat); err != nil {
		return 0, fmt.Errorf("%s cannot be used (%w): Triton's Python models need it, mount a tmpfs there", triton.SharedMemory, err)
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}
