package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/postprocess"
	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
)

type segmentCommand struct {
	Picture   string   `arg:"" help:"A JPEG, PNG, WebP, GIF, BMP or TIFF; - reads it from standard input."`
	Phrases   []string `arg:"" name:"phrase" help:"What to find."`
	Output    string   `short:"o" placeholder:"FILE" help:"Write the mask as PNG; of several phrases, FILE-1.png and so on. - is standard output, for one phrase; the table then goes to standard error."`
	JSON      bool     `name:"json" help:"Print the answer that POST /v1/segment gives."`
	Variant   string   `help:"The variant to ask. Default: by REFERSAM_SPLIT."`
	Threshold float64  `help:"Foreground probability from which a pixel is in the mask. Default: the model's own."`
}

// Run answers one request with the servers in REFERSAM_TRITON. If the variable is
// empty, it starts a Triton server for the request.
func (c *segmentCommand) Run(ctx context.Context, m *Main, cfg *Config) (err error) {
	if c.Output == dash && (c.JSON || len(c.Phrases) > 1) {
		return errors.New("--output - writes one mask only: give one phrase, and leave out --json")
	}
	if err := errors.Join(cfg.validate(), cfg.Local.Validate(), cfg.validateTriton()); err != nil {
		return err
	}
	if _, set := cfg.environ["REFERSAM_LOG_LEVEL"]; !set {
		cfg.Log.Level = slog.LevelWarn
	}
	log := telemetry.NewLogger(cfg.Log, m.Stderr)
	image, err := readPicture(c.Picture, m.Stdin, cfg.Preprocess.MaxBytes)
	if err != nil {
		return err
	}

	cfg.Triton.SharedMemory = "off" // setting it up costs 0.1 s, too much for one picture
	fleet, err := triton.NewFleet(cfg.Triton, log)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if len(cfg.Triton.Addresses) > 0 {
		err = fleet.Resolve(ctx)
	} else {
		cfg.Local.Logger = log
		cfg.Local.SocketDir = "" // “refersam up” may be using the default
		if err := limitRows(cfg, log); err != nil {
			return err
		}
		var server *local.Server
		if server, err = local.Start(ctx, cfg.Local); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop(ctx, server)) }()
		err = fleet.Add(server.Address())
	}
	if err != nil {
		return err
	}

	cfg.Pipeline.Schedule.Admission = false // there are no other requests
	_, model, err := newPipeline(cfg, fleet, log)
	if err != nil {
		return err
	}
	defer model.Close()
	model.SetReplicas(replicas(fleet.Replicas()))
	segmenter, err := experiment.New(cfg.Experiment, model, func(experiment.Exposure) {})
	if err != nil {
		return err
	}
	req := &refersam.Request{ID: rand.Text(), Image: image, Variant: c.Variant}
	for _, phrase := range c.Phrases {
		req.Phrases = append(req.Phrases, refersam.Phrase{Text: phrase, Threshold: c.Threshold})
	}
	if err := model.Learn(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Gateway.Answers.RequestTimeout)
	defer cancel()
	resp, err := segmenter.Segment(ctx, req)
	if err != nil {
		return err
	}
	if err := c.writeMasks(m, resp); err != nil {
		return err
	}
	if c.JSON {
		masks := make([]api.AnswerMasks, len(resp.Results))
		for i := range resp.Results {
			masks[i].RLE = answer.NewRLE(resp.Results[i].Mask)
		}
		line, err := json.Marshal(answer.NewAnswer(req.ID, resp, masks))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(m.Stdout, "%s\n", line)
		return err
	}
	if c.Output == dash {
		return c.print(m.Stderr, resp)
	}
	return c.print(m.Stdout, resp)
}

func (c *segmentCommand) writeMasks(m *Main, resp *refersam.Response) error {
	if c.Output == "" {
		return nil
	}
	for i := range resp.Results {
		name := c.Output
		if len(resp.Results) > 1 {
			extension := filepath.Ext(name)
			name = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, extension), i+1, extension)
		}
		err := writeOutput(name, m.Stdout, func(w io.Writer) error { return postprocess.EncodePNG(w, resp.Results[i].Mask) })
		if err != nil {
			return err
		}
	}
	return nil
}

// print writes one line per phrase.
func (c *segmentCommand) print(w io.Writer, resp *refersam.Response) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "phrase\tstatus\tscore\tarea\tbox (x, y, w, h)\tvariant\n")
	for i := range resp.Results {
		r := &resp.Results[i]
		share := 100 * float64(r.Area) / float64(resp.Width*resp.Height)
		fmt.Fprintf(table, "%s\t%s\t%.3f\t%d px (%.1f %%)\t%d, %d, %d, %d\t%s\n",
			c.Phrases[i], api.Status(r), r.Score, r.Area, share, r.Box.X, r.Box.Y, r.Box.W, r.Box.H, resp.Variant)
		if r.Truncated() {
			fmt.Fprintf(table, "  only the first %d of %d tokens were read\t\t\t\t\t\n", r.Limit, r.Tokens)
		}
	}
	return table.Flush()
}
