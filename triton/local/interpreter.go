package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const installHint = "`make run` installs it in a checkout; another environment's interpreter can be named in REFERSAM_PYTHON"

// pythonIn is where a virtual environment has its interpreter, and venvIn the
// environment in the folder of a checkout.
const (
	pythonIn = "bin/python"
	venvIn   = ".venv"
)

// notInstalled is the error of an interpreter that lacks something that an
// installation would bring.
type notInstalled struct{ error }

func (e notInstalled) Unwrap() error { return e.error }

// chooseInterpreter returns the interpreter to run Triton's Python models with:
// the named one or, if named is empty, the first of candidates that has what it
// takes. environment names variables that the interpreter sees beside those that
// every server sees. Its errors name every interpreter that was tried.
func chooseInterpreter(ctx context.Context, repository, named string, environment []string) (*python, error) {
	if named != "" {
		p, err := findPython(ctx, named, environment)
		if missing := (notInstalled{}); errors.As(err, &missing) {
			err = fmt.Errorf("%w: %s", err, installHint)
		}
		return p, err
	}
	var tried []string
	for _, c := range candidates(repository) {
		if c.path == "" {
			tried = append(tried, c.place+" is not set")
			continue
		}
		var err error
		if _, err = os.Stat(c.path); err != nil {
			err = fmt.Errorf("no file %s", c.path)
		} else if err = c.check(); err == nil {
			var p *python
			if p, err = findPython(ctx, c.path, environment); err == nil {
				return p, nil
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		tried = append(tried, c.place+": "+err.Error())
	}
	return nil, fmt.Errorf("no Python with the wheel nvidia-pytriton, which brings tritonserver: %s. Tried:\n  %s",
		installHint, strings.Join(tried, "\n  "))
}

// candidate is an interpreter that may be there. Its path is empty if nothing
// says where it would be.
type candidate struct {
	place, path string
	folder      string // holds the environment; empty if the user has named that
}

// check reports whether another user may have put the interpreter there, which
// nobody has named.
func (c *candidate) check() error {
	if c.folder == "" {
		return nil
	}
	info, err := os.Stat(c.folder)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s is not run, because every user can put programs into %s", c.path, c.folder)
	}
	return checkParents(c.folder, false)
}

// candidates lists the interpreters to try, the first choice first.
func candidates(repository string) []candidate {
	in := func(place, folder string) candidate {
		return candidate{place, filepath.Join(folder, venvIn, pythonIn), folder}
	}
	list := []candidate{in("beside the model repository", filepath.Dir(repository))}
	// A checkout has its program in bin, another installation perhaps beside the environment.
	if program, err := os.Executable(); err == nil {
		folder := filepath.Dir(program)
		list = append(list, in("beside the program", folder), in("beside the program's folder", filepath.Dir(folder)))
	}
	if folder, err := os.Getwd(); err == nil {
		list = append(list, in("in the working directory", folder))
	}
	activated := candidate{place: "VIRTUAL_ENV"}
	if folder := os.Getenv(activated.place); folder != "" {
		activated.path = filepath.Join(folder, pythonIn)
	}
	list = append(list, activated)
	var distinct []candidate
	for _, c := range list {
		if c.path == "" || !slices.ContainsFunc(distinct, func(d candidate) bool { return d.path == c.path }) {
			distinct = append(distinct, c)
		}
	}
	return distinct
}
