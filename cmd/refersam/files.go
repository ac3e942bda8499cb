package main

import (
	"errors"
	"io"
	"os"
)

// dash stands for standard input or output where a file could be named.
const dash = "-"

// readPicture returns the bytes of a picture, cut off behind the first one that
// is too many.
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

// writeOutput lets write fill a file.
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
