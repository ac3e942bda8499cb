package tune

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/refersam/refersam/triton"
	"google.golang.org/protobuf/proto"
)

// SetInstances returns the text of a config.pbtxt with count instances in each
// group. It changes only the numbers, or adds the one or two lines that are
// missing; comments and everything else stay as they are. It returns an error if
// the new text does not mean the same as the old one, apart from the count.
func SetInstances(text []byte, count int) ([]byte, error) {
	before, err := triton.ParseConfig(text)
	if err != nil {
		return nil, err
	}
	edited, err := editInstances(text, count)
	if err != nil {
		return nil, err
	}
	after, err := triton.ParseConfig(edited)
	if err != nil {
		return nil, fmt.Errorf("after the change: %w", err)
	}
	if !proto.Equal(after, triton.WithInstances(before, count)) {
		return nil, errors.New("its instance_group is written in a way that cannot be changed safely: change it by hand")
	}
	return edited, nil
}

const groupField = "instance_group"

// editInstances changes the count of every instance group, and adds the missing
// ones.
func editInstances(text []byte, count int) ([]byte, error) {
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	var edits []edit
	groups := 0
	for i := 0; i < len(tokens); i++ {
		if tokens[i].depth != 0 || tokens[i].text != groupField {
			continue
		}
		for _, open := range groupsAfter(tokens, i) {
			groups++
			edits = append(edits, setCount(text, tokens, open, count))
		}
	}
	if groups == 0 {
		added := fmt.Sprintf("%s {\n  count: %d\n}\n", groupField, count)
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			added = "\n" + added
		}
		edits = append(edits, edit{len(text), len(text), added})
	}
	var edited []byte
	at := 0
	for _, e := range edits {
		edited = append(append(edited, text[at:e.from]...), e.text...)
		at = e.to
	}
	return append(edited, text[at:]...), nil
}

// edit replaces the text from one offset to another.
type edit struct {
	from, to int
	text     string
}

// groupsAfter returns the opening brackets of the groups in the field at i, which
// is one group or a list of groups.
func groupsAfter(tokens []token, i int) []int {
	var groups []int
	next := i + 1
	if next < len(tokens) && tokens[next].text == ":" {
		next++
	}
	if next < len(tokens) && tokens[next].text != "[" {
		return append(groups, next)
	}
	for next++; next < len(tokens) && tokens[next].depth > tokens[i].depth; next++ {
		if t := tokens[next]; t.depth == tokens[i].depth+1 && (t.text == "{" || t.text == "<") {
			groups = append(groups, next)
		}
	}
	return groups
}

// setCount sets the count of the group with its bracket at open. If the group
// has no count, setCount adds one as its first field.
func setCount(text []byte, tokens []token, open, count int) edit {
	inside := tokens[open].depth + 1
	for i := open + 1; i+2 < len(tokens) && tokens[i].depth >= inside; i++ {
		if tokens[i].depth == inside && tokens[i].text == "count" && tokens[i+1].text == ":" {
			value := tokens[i+2]
			return edit{value.from, value.from + len(value.text), strconv.Itoa(count)}
		}
	}
	after := tokens[open].from + 1
	line := fmt.Sprintf(" count: %d", count)
	if first := open + 1; first < len(tokens) && bytes.ContainsRune(text[after:tokens[first].from], '\n') {
		begin := bytes.LastIndexByte(text[:tokens[first].from], '\n') + 1
		indent := string(text[begin:tokens[first].from])
		if tokens[first].depth < inside || strings.TrimSpace(indent) != "" {
			indent = "  "
		}
		line = "\n" + indent + strings.TrimSpace(line)
	}
	return edit{after, after, line}
}

// token is a piece of a text in protobuf's text format: a bracket, one of
// ":,;", a string or a word.
type token struct {
	text string
	from int
	// depth is the number of brackets around the token. A bracket is outside of
	// itself.
	depth int
}

// scan cuts a text into tokens and drops comments.
func scan(text []byte) ([]token, error) {
	var tokens []token
	depth := 0
	for i := 0; i < len(text); {
		end := i + 1
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
			continue
		case '#':
			for end < len(text) && text[end] != '\n' {
				end++
			}
			i = end
			continue
		case '"', '\'':
			for end < len(text) && text[end] != c {
				if text[end] == '\\' {
					end++
				}
				end++
			}
			if end++; end > len(text) {
				return nil, errors.New("a string has no end")
			}
		case '}', ']', '>':
			depth--
		case '{', '[', '<', ':', ',', ';':
		default:
			for end < len(text) && !strings.ContainsRune(" \t\r\n#\"'{}[]<>:,;", rune(text[end])) {
				end++
			}
		}
		tokens = append(tokens, token{string(text[i:end]), i, depth})
		if strings.ContainsRune("{[<", rune(text[i])) {
			depth++
		}
		i = end
	}
	return tokens, nil
}
