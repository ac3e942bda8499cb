package main

import (
	"errors"
	"io"
	"os"
)

// dash means standard input or output in place of a file.
const dash = "-"

// readPicture returns the bytes of a picture, but at most one more than the limit.
func readPicture(name string, stdin io.Reader, most int64) ([]byte, error) {
	in := stdin
	if name != dash {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	return io.ReadAll(io.LimitReader(in, most+1))
}

// writeOutput creates a file and calls write to fill it.
func writeOutput(name string, stdout io.Writer, write func(io.Writer) error) error {
	if name == dash {
		return write(stdout)
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
