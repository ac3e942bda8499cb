package tokenize

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
)

//go:embed vocab/*.txt.gz
var vocabFiles embed.FS

// readLines returns the lines of a vocabulary.
func readLines(name string) ([]string, error) {
	zipped, err := vocabFiles.ReadFile("vocab/" + name + ".txt.gz")
	if err != nil {
		return nil, err
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, err
	}
	var lines []string
	scanner := bufio.NewScanner(unzipped)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", len(lines)+1, err)
	}
	return lines, nil
}
