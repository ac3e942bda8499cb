package main_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	main "github.com/refersam/refersam/cmd/refersam"
)

// tokenizeLines runs the subcommand on input.
func tokenizeLines(t *testing.T, input string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	m := main.Main{Args: append([]string{"tokenize"}, args...), Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errs}
	code = m.Run(t.Context())
	return code, out.String(), errs.String()
}

func TestTokenize(t *testing.T) {
	const bert, clip = "bert-base-uncased", "clip-vit-large-patch14"
	for _, tc := range []struct {
		name, input string
		args        []string
		want        string
	}{
		{"BERT", "the duck on the left\n", []string{"--tokenizer", bert}, "[101,1996,9457,2006,1996,2187,102]\n"},
		{"CLIP", "the duck on the left\n", []string{"--tokenizer", clip}, "[49406,518,6910,525,518,1823,49407]\n"},
		{"zero is the default", "duck\n", []string{"--tokenizer", bert, "--max-tokens", "0"}, "[101,9457,102]\n"},
		{"padded", "duck\n", []string{"--tokenizer", bert, "--max-tokens", "5"}, "[101,9457,102,0,0]\n"},
		{"padded by CLIP", "duck\n", []string{"--tokenizer", clip, "--max-tokens", "5"}, "[49406,6910,49407,49407,49407]\n"},
		{"cut", "the duck on the left\n", []string{"--tokenizer", clip, "--max-tokens=4"}, "[49406,518,6910,49407]\n"},
		{"longer than the model reads", strings.Repeat("duck ", 100), []string{"--tokenizer", clip}, "[49406," + strings.Repeat("6910,", 100) + "49407]\n"},
		{"nothing", "", []string{"--tokenizer", bert}, ""},
		{"empty lines", "\n\n", []string{"--tokenizer", bert}, "[101,102]\n[101,102]\n"},
		{"no line end", "duck\nduck", []string{"--tokenizer", bert}, "[101,9457,102]\n[101,9457,102]\n"},
		{"nothing else ends a line", "duck\rduck\v\f\u0085\u2028\u2029duck\r\n", []string{"--tokenizer", clip}, "[49406,6910,6910,6910,49407]\n"},
		{"a byte order mark and a NUL", "\ufeffduck\x00\n", []string{"--tokenizer", bert}, "[101,9457,102]\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := tokenizeLines(t, tc.input, tc.args...)
			if code != 0 || errs != "" || out != tc.want {
				t.Errorf("exit %d, %q, errors %q; want %q", code, out, errs, tc.want)
			}
		})
	}
}

func TestTokenize_Failures(t *testing.T) {
	const longest = 1 << 20
	for _, tc := range []struct {
		name, input string
		args        []string
		code        int
		lines       int // that were answered
		want        string
	}{
		{"no tokenizer", "a\n", nil, 2, 0, "--tokenizer"},
		{"another tokenizer", "a\n", []string{"--tokenizer", "gpt2"}, 2, 0, "bert-base-uncased, clip-vit-large-patch14"},
		{"too few tokens", "a\n", []string{"--tokenizer", "bert-base-uncased", "--max-tokens", "2"}, 2, 0, "from 3 to 512"},
		{"too many tokens", "a\n", []string{"--tokenizer", "clip-vit-large-patch14", "--max-tokens", "78"}, 2, 0, "from 3 to 77"},
		{"less than no tokens", "a\n", []string{"--tokenizer", "bert-base-uncased", "--max-tokens=-1"}, 2, 0, "from 3 to 512"},
		{"no number", "a\n", []string{"--tokenizer", "bert-base-uncased", "--max-tokens", "few"}, 2, 0, "--max-tokens"},
		{"an argument", "a\n", []string{"--tokenizer", "bert-base-uncased", "a"}, 2, 0, "unexpected argument a"},
		{"not UTF-8", "a\nb\xff\nc\n", []string{"--tokenizer", "bert-base-uncased"}, 1, 1, "line 2 is not valid UTF-8"},
		{"a surrogate", "a\nb\n\xed\xa0\x80\n", []string{"--tokenizer", "clip-vit-large-patch14"}, 1, 2, "line 3 is not valid UTF-8"},
		{"a long line", "a\n" + strings.Repeat(" ", longest+1) + "\na\n", []string{"--tokenizer", "bert-base-uncased"}, 1, 1, "line 2 is longer than 1048576 bytes"},
		{"a long line without end", strings.Repeat("a", longest+1), []string{"--tokenizer", "bert-base-uncased"}, 1, 0, "line 1 is longer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := tokenizeLines(t, tc.input, tc.args...)
			if code != tc.code || !strings.Contains(errs, tc.want) {
				t.Errorf("exit %d, want %d and a message with %q:\n%s", code, tc.code, tc.want, errs)
			}
			if tc.code == 1 && strings.Count(out, "\n") != tc.lines {
				t.Errorf("%d lines answered, want %d", strings.Count(out, "\n"), tc.lines)
			}
		})
	}
	for _, end := range []string{"", "\n"} {
		if code, out, errs := tokenizeLines(t, strings.Repeat(" ", longest)+end, "--tokenizer", "bert-base-uncased"); code != 0 || out != "[101,102]\n" {
			t.Errorf("the longest line: exit %d, %q, %s", code, out, errs)
		}
	}
}

// Each line is answered before the next one is sent, and the program stops on a
// signal whatever its input does.
func TestTokenize_Stream(t *testing.T) {
	in, feed := io.Pipe()
	answers, out := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	m := main.Main{Args: []string{"tokenize", "--tokenizer", "bert-base-uncased"}, Stdin: in, Stdout: out, Stderr: io.Discard}
	exit := make(chan int, 1)
	go func() { exit <- m.Run(ctx) }()

	read := bufio.NewReader(answers)
	for range 3 {
		if _, err := io.WriteString(feed, "duck\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := read.ReadString('\n'); err != nil || line != "[101,9457,102]\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	stop()
	select {
	case code := <-exit:
		if code != 1 {
			t.Errorf("exit %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	feed.Close()
}
