package local

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// logLine matches a line of Triton's default format: level, MMDD, time,
// process, source and message, the message quoted as Go would.
var logLine = regexp.MustCompile(`^([IWEF])\d{4} \S+ \d+ (\S+)\] (.*)$`)

// harmless are complaints of a server that was built for GPUs and finds none.
var harmless = []string{
	"Unable to allocate pinned system memory",
	"failed to allocate pinned system memory",
	"CudaDriverHelper has not been initialized",
	"unable to create stream for",
}

// summary is the last complaint of a server that cannot load a model.
// The complaints before it say which model and why.
const summary = "creating server: Internal - failed to load all models"

// serverLog forwards what the server writes to a logger and remembers the last
// complaint. Level I becomes Debug: the server logs more than its user wants
// to know. Lines of another form come from Python, from tritonserver's main
// function ("error: ") and from the C++ runtime ("terminate called", "what()").
type serverLog struct {
	logger *slog.Logger
	paths  *strings.Replacer // from the links to the models to the models

	mu        sync.Mutex
	complaint string
}

// forward reads r to its end.
func (l *serverLog) forward(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			l.line(line)
		}
		if err != nil {
			return
		}
	}
}

func (l *serverLog) line(line string) {
	level, message, attributes := parseLogLine(l.paths.Replace(line))
	if level >= slog.LevelError {
		l.mu.Lock()
		if message != summary || l.complaint == "" {
			l.complaint = message
		}
		l.mu.Unlock()
	}
	l.logger.LogAttrs(context.Background(), level, message, attributes...)
}

// lastComplaint returns the message of the last error, or "".
func (l *serverLog) lastComplaint() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.complaint
}

func parseLogLine(line string) (slog.Level, string, []slog.Attr) {
	match := logLine.FindStringSubmatch(line)
	if match == nil {
		switch {
		case strings.HasPrefix(line, "error: "), strings.HasPrefix(line, "terminate called"), strings.HasPrefix(line, "  what(): "):
			return slog.LevelError, strings.TrimSpace(strings.TrimPrefix(line, "error: ")), nil
		case strings.HasPrefix(line, "|"), strings.HasPrefix(line, "+"), // tables of options and models
			strings.HasPrefix(line, "Signal ("): // it stops after a signal
			return slog.LevelDebug, line, nil
		}
		return slog.LevelInfo, line, nil
	}
	message := match[3]
	if unquoted, err := strconv.Unquote(message); err == nil {
		message = unquoted
	}
	level := slog.LevelDebug
	switch match[1] {
	case "W":
		level = slog.LevelWarn
	case "E", "F":
		level = slog.LevelError
	}
	for _, h := range harmless {
		if strings.Contains(message, h) {
			level = slog.LevelDebug
		}
	}
	return level, message, []slog.Attr{slog.String("source", match[2])}
}
