package main

import (
	"context"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
)

// The exit statuses of the program.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

// Main is the program with all its inputs and outputs.
type Main struct {
	// Args are the arguments without the program's name.
	Args []string
	// Environ holds NAME=value pairs, as os.Environ does.
	Environ        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// commands is the command line.
type commands struct {
	Up         upCommand         `cmd:"" help:"Start a Triton server on this machine, and the gateway that uses it."`
	Serve      serveCommand      `cmd:"" help:"Start the gateway with the Triton servers named in REFERSAM_TRITON."`
	Segment    segmentCommand    `cmd:"" help:"Find phrases in a picture, without HTTP."`
	Tokenize   tokenizeCommand   `cmd:"" help:"Print the token ids of each line of standard input."`
	Preprocess preprocessCommand `cmd:"" help:"Write the square of pixels that a model gets of a picture."`
	Mask       maskCommand       `cmd:"" help:"Turn the model's logits into a mask of the picture's size."`
	Batching   batchingCommand   `cmd:"" help:"Show or change how a running service forms batches."`
	Tune       tuneCommand       `cmd:"" help:"Measure which numbers of instances and which batches are best."`
	Keys       keysCommand       `cmd:"" help:"Make, list, rotate and revoke API keys."`
	Backup     backupCommand     `cmd:"" help:"Copy the SQLite database, while a gateway uses it."`
	Restore    restoreCommand    `cmd:"" help:"Replace the SQLite database by a backup, while no gateway uses it."`
	Purge      purgeCommand      `cmd:"" help:"Delete expired pictures and jobs, and leftover objects, at once."`
	Config     configCommand     `cmd:"" help:"Print the effective configuration and where each value comes from, and check it."`
	Version    versionCommand    `cmd:"" help:"Print what this program was built from."`
}

// Run runs the program until it is done or ctx ends, and returns its exit
// status.
func (m *Main) Run(ctx context.Context) int {
	exit := -1
	parser, err := kong.New(&commands{},
		kong.Name("refersam"),
		kong.Description("Which pixels does a phrase mean?\n\nREFERSAM_… variables configure it; “refersam config” lists them."),
		kong.Writers(m.Stdout, m.Stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.UsageOnError(),
	)
	if err != nil {
		return m.fail(err)
	}
	command, err := parser.Parse(m.Args)
	switch {
	case exit >= 0: // --help was asked for and given
		return exit
	case err != nil:
		m.fail(err)
		return exitUsage
	}
	cfg, err := loadConfig(m.Environ)
	if err != nil {
		return m.fail(err)
	}
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(m, cfg); err != nil {
		return m.fail(err)
	}
	return exitOK
}

func (m *Main) fail(err error) int {
	fmt.Fprintf(m.Stderr, "refersam: %v\n", err)
	return exitFault
}
