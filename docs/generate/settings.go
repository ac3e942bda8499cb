package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// setting is one field of a struct of settings, or several with one comment.
type setting struct {
	fields, variables []string
	comment           string
}

// group is one struct of settings.
type group struct {
	name, folder, comment string
	settings              []setting
}

// firstFolders are the folders with settings that most operators change.
var firstFolders = []string{"gateway", "telemetry", "store", "blobs"}

// settingTable lists the variables of the environment, with the comments of the
// fields that they fill.
func settingTable(root string) (string, error) {
	groups, err := readSettings(root)
	if err != nil {
		return "", err
	}
	var rows [][]string
	for _, g := range groups {
		rows = append(rows, []string{"**" + sentence(g.comment, g.name) + "**", "", ""})
		for _, s := range g.settings {
			meaning, value := s.comment, ""
			if at := strings.LastIndex(meaning, "Default"); at >= 0 {
				meaning, value = meaning[:at], strings.TrimLeft(strings.TrimPrefix(meaning[at:], "Default"), ": ")
			}
			if value == "" {
				return "", fmt.Errorf("the comment of %s.%s names no default", g.name, s.fields[0])
			}
			rows = append(rows, []string{
				"`" + strings.Join(s.variables, "`, `") + "`",
				g.escape(strings.TrimSuffix(value, ".")),
				g.escape(sentence(meaning, s.fields...)),
			})
		}
	}
	return table([]string{"variable", "default", "meaning"}, rows), nil
}

// sentence turns a comment that begins with the names of fields into a sentence
// without them: "Listen is the port." becomes "The port.".
func sentence(comment string, names ...string) string {
	comment = strings.TrimSpace(comment)
	comment = strings.TrimPrefix(comment, strings.Join(names, " and ")+" ")
	for _, verb := range []string{"is ", "are ", "says ", "sets "} {
		if rest, ok := strings.CutPrefix(comment, verb); ok {
			comment = rest
			break
		}
	}
	first := []rune(comment)
	first[0] = unicode.ToUpper(first[0])
	return strings.TrimSuffix(string(first), ".")
}

var (
	inQuotes = regexp.MustCompile(`"([^"]*)"`)
	address  = regexp.MustCompile(`(^|[\s(])((?:[a-z]\w*://|/[a-z])[^\s,;)]*[^\s,;.)])`)
	// settingTag matches the tag of a field with a variable.
	settingTag = regexp.MustCompile("`env:\"(REFERSAM|OTEL)_")
	variable   = regexp.MustCompile("(`?)(REFERSAM_[A-Z_]+)`?")
)

// escape turns a comment into Markdown. Fields of the same struct become variables.
func (g *group) escape(comment string) string {
	for _, s := range g.settings {
		for i, field := range s.fields {
			if strings.ContainsFunc(field[1:], unicode.IsUpper) {
				comment = regexp.MustCompile(`\b`+field+`\b`).ReplaceAllString(comment, s.variables[i])
			}
		}
	}
	comment = strings.NewReplacer("*", `\*`, "<", "&lt;", "|", `\|`).Replace(comment)
	comment = inQuotes.ReplaceAllString(comment, "`$1`")
	comment = address.ReplaceAllString(comment, "$1`$2`")
	return variable.ReplaceAllString(comment, "`$2`")
}

// readSettings finds the structs with fields that the environment fills.
func readSettings(root string) ([]group, error) {
	files, err := readFiles(root, ".go")
	if err != nil {
		return nil, err
	}
	var groups []group
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, "_test.go") || !settingTag.MatchString(files[name]) {
			continue
		}
		found, err := parseSettings(files[name], path.Dir(name))
		if err != nil {
			return nil, err
		}
		groups = append(groups, found...)
	}
	rank := func(g group) int {
		if at := slices.Index(firstFolders, g.folder); at >= 0 {
			return at
		}
		return len(firstFolders)
	}
	slices.SortStableFunc(groups, func(a, b group) int { return rank(a) - rank(b) })
	return groups, nil
}

func parseSettings(text string, folder string) ([]group, error) {
	file, err := parser.ParseFile(token.NewFileSet(), folder, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var groups []group
	ast.Inspect(file, func(n ast.Node) bool {
		decl, ok := n.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			return true
		}
		for _, spec := range decl.Specs {
			t := spec.(*ast.TypeSpec)
			s, ok := t.Type.(*ast.StructType)
			if !ok {
				continue
			}
			g := group{name: t.Name.Name, folder: folder, comment: oneLine(decl.Doc)}
			for _, f := range s.Fields.List {
				g.add(f)
			}
			if len(g.settings) > 0 {
				groups = append(groups, g)
			}
		}
		return true
	})
	return groups, nil
}

// add adds a field that has a variable. A field without a comment belongs to the
// comment before it.
func (g *group) add(f *ast.Field) {
	if f.Tag == nil || len(f.Names) != 1 {
		return
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return
	}
	variable := reflect.StructTag(tag).Get("env")
	if !strings.HasPrefix(variable, "REFERSAM_") && !strings.HasPrefix(variable, "OTEL_") {
		return
	}
	if f.Doc == nil && len(g.settings) > 0 {
		last := &g.settings[len(g.settings)-1]
		last.fields, last.variables = append(last.fields, f.Names[0].Name), append(last.variables, variable)
		return
	}
	g.settings = append(g.settings, setting{[]string{f.Names[0].Name}, []string{variable}, oneLine(f.Doc)})
}

// oneLine returns a comment without its line breaks.
func oneLine(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }
