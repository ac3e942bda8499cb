package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/refersam/refersam/tokenize"
)

// maxLineBytes bounds a line of the input, and with it the memory of
// tokenizeCommand.
const maxLineBytes = 1 << 20

type tokenizeCommand struct {
	Tokenizer string `required:"" placeholder:"NAME" help:"bert-base-uncased or clip-vit-large-patch14."`
	MaxTokens int    `placeholder:"N" help:"Cut and pad to this many ids, as the model gets them. Default: 0, neither cut nor padded."`

	tokenizer *tokenize.Tokenizer
}

// AfterApply refuses names and numbers that no tokenizer supports; kong calls it.
func (c *tokenizeCommand) AfterApply() (err error) {
	c.tokenizer, err = tokenize.New(c.Tokenizer, c.MaxTokens)
	return err
}

// Run prints the ids of each line as a JSON array. A line ends only at "\n", and
// the last line may end without it.
func (c *tokenizeCommand) Run(ctx context.Context, m *Main) error {
	done := make(chan error, 1)
	// A read from a terminal ignores the context. When the context ends, the
	// goroutine is abandoned.
	go func() { done <- c.copy(ctx, m.Stdout, m.Stdin) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *tokenizeCommand) copy(ctx context.Context, out io.Writer, in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxLineBytes+1)
	w := bufio.NewWriter(out)
	var (
		e   tokenize.Encoding
		row []byte
	)
	for n := 1; ctx.Err() == nil; n++ {
		if lines.Buffered() == 0 {
			// Flush at once for a writer that waits for the ids of one line before
			// it sends the next.
			if err := w.Flush(); err != nil {
				return err
			}
		}
		line, err := lines.ReadSlice('\n')
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return errors.Join(w.Flush(), fmt.Errorf("line %d is longer than %d bytes", n, maxLineBytes))
		case err != nil && !errors.Is(err, io.EOF):
			return errors.Join(w.Flush(), err)
		case !whole && len(line) == 0:
			return w.Flush()
		case !utf8.Valid(line):
			return errors.Join(w.Flush(), fmt.Errorf("line %d is not valid UTF-8", n))
		}
		c.tokenizer.EncodeInto(&e, string(line))
		row = append(row[:0], '[')
		for i, id := range e.IDs {
			if i > 0 {
				row = append(row, ',')
			}
			row = strconv.AppendInt(row, int64(id), 10)
		}
		row = append(row, ']', '\n')
		if _, err := w.Write(row); err != nil {
			return err
		}
	}
	return ctx.Err()
}
