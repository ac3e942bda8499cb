package intake

import (
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// unmarshalers read the types of package api within bounds, because a body has
// space for millions of elements. A whole number may be written as 64.0, as some
// languages do and JSON Schema allows. A number beyond ±2^53 becomes that bound,
// which is out of every range.
var unmarshalers = json.WithUnmarshalers(json.JoinUnmarshalers(
	json.UnmarshalFromFunc(readInt),
	json.UnmarshalFromFunc(readPicture),
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, list *[]string) (err error) {
		*list, err = readList[string](d, api.MaxFormats)
		return err
	}),
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, list *[]api.Prompt) (err error) {
		*list, err = readList[api.Prompt](d, api.MaxPrompts)
		return err
	}),
	json.UnmarshalFromFunc(func(d *jsontext.Decoder, list *[]api.BatchItem) (err error) {
		*list, err = readList[api.BatchItem](d, api.MaxItems)
		return err
	}),
))

func readInt(d *jsontext.Decoder, n *api.Int) error {
	if d.PeekKind() != '0' {
		return errors.ErrUnsupported // this makes the library report which type it expects
	}
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	f, err := strconv.ParseFloat(token.String(), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || f != math.Trunc(f) {
		return refersam.Invalidf(string(d.StackPointer()), "The value is not a whole number.")
	}
	*n = api.Int(max(-1<<53, min(f, 1<<53)))
	return nil
}

// readPicture reads where a picture is. A member that is present must not be null,
// because its presence selects the kind of source.
func readPicture(d *jsontext.Decoder, p *api.Picture) error {
	if d.PeekKind() != '{' {
		return errors.ErrUnsupported // this makes the library report which type it expects
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		name, place := token.String(), string(d.StackPointer())
		if d.PeekKind() == 'n' {
			return refersam.Invalidf(place, "The value must not be null; leave it out.")
		}
		switch name {
		case "data":
			err = json.UnmarshalDecode(d, &p.Data)
		case "id":
			err = json.UnmarshalDecode(d, &p.ID)
		case "url":
			err = json.UnmarshalDecode(d, &p.URL)
		default:
			err = refersam.Invalidf(place, "The field %q does not exist here.", name)
		}
		if err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// readList reads an array element by element, and stops after most, because a body
// has space for millions.
func readList[T any](d *jsontext.Decoder, most int) (list []T, err error) {
	switch d.PeekKind() {
	case 'n':
		return nil, d.SkipValue()
	case '[':
	default:
		return nil, errors.ErrUnsupported // this makes the library report that it expects an array
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	at := d.StackPointer()
	for d.PeekKind() != ']' {
		if len(list) == most {
			return nil, refersam.Invalidf(string(at), "At most %d are allowed.", most)
		}
		var element T
		if err := json.UnmarshalDecode(d, &element); err != nil {
			return nil, err
		}
		list = append(list, element)
	}
	_, err = d.ReadToken()
	return list, err
}

// parseJSON reads a body.
func parseJSON(r io.Reader, maxImage int64) (*Request, error) {
	var b api.SegmentRequest
	if err := ReadJSON(r, &b); err != nil {
		return nil, err
	}
	var wrong refersam.Faults
	common, err := parseCommon(&b.Common)
	wrong.Add(err)
	req, err := newRequest("", common, b.Image, b.Prompts, &b.Output, maxImage)
	wrong.Add(err)
	return req, wrong.Err()
}

// parseCommon checks the members that apply to all pictures.
func parseCommon(c *api.Common) (Request, error) {
	var (
		req   = Request{Variant: ValueOr(c.Variant, "")}
		wrong refersam.Faults
		err   error
	)
	if c.Variant != nil && *c.Variant == "" {
		wrong.Add(refersam.Invalidf("/variant", emptyVariant))
	}
	if c.Deadline != nil {
		req.Deadline, err = parseDeadline(*c.Deadline, "/deadline_ms")
		wrong.Add(err)
	}
	if c.Priority != nil {
		req.Priority, err = parsePriority(*c.Priority, "/priority")
		wrong.Add(err)
	}
	if c.Webhook != nil {
		if req.Webhook = c.Webhook.URL; req.Webhook == "" {
			wrong.Add(refersam.Invalidf("/webhook/url", "The value is empty."))
		}
	}
	return req, wrong.Err()
}

// newRequest combines the members in common with a body's members about one
// picture, or returns all their faults. at is the picture's place in the body.
func newRequest(at string, common Request, image *api.Picture, prompts []api.Prompt, out *api.Output, maxImage int64) (*Request, error) {
	req := &common
	req.Output = *out
	req.Naming = answer.Naming{At: at}
	var (
		wrong refersam.Faults
		err   error
	)
	req.Source, err = pictureSource(image, at+"/image", maxImage)
	wrong.Add(err)
	wrong.Add(checkOutput(&req.Output, func(member string) string { return at + "/output/" + member }))
	req.Prompts, err = newPrompts(prompts, at+"/prompts", &req.Output)
	wrong.Add(err)
	wrong.Add(req.checkOverlay(at + "/output/size"))
	return req, wrong.Err()
}

// pictureSource checks where a picture is; at is the place of p in the body.
func pictureSource(p *api.Picture, at string, maxImage int64) (answer.Source, error) {
	var sources []answer.Source
	if p != nil && p.Data != nil {
		sources = append(sources, answer.Source{Data: p.Data, Field: at + "/data"})
	}
	if p != nil && p.ID != nil {
		sources = append(sources, answer.Source{ID: *p.ID, Field: at + "/id"})
	}
	if p != nil && p.URL != nil {
		sources = append(sources, answer.Source{URL: *p.URL, Field: at + "/url"})
	}
	switch {
	case len(sources) == 0:
		return answer.Source{}, refersam.Invalidf(at, "The picture is missing: send it as base64 in data, or say where it is in id or url.")
	case len(sources) > 1:
		return answer.Source{}, refersam.Invalidf(sources[1].Field, "The picture was already given in %q.", sources[0].Field)
	case sources[0].Data == nil && sources[0].ID == "" && sources[0].URL == "":
		return answer.Source{}, refersam.Invalidf(sources[0].Field, "The value is empty.")
	case int64(len(sources[0].Data)) > maxImage:
		return answer.Source{}, tooLarge(sources[0].Field, maxImage)
	}
	return sources[0], nil
}

// newPrompts checks the prompts of a picture; at is the place of l in the body.
// It reports all faults at once.
func newPrompts(l []api.Prompt, at string, request *api.Output) ([]answer.Prompt, error) {
	var (
		made  = make([]answer.Prompt, len(l))
		wrong refersam.Faults
	)
	for i := range l {
		var err error
		wrong.Add(CheckID(fmt.Sprintf("%s/%d/id", at, i), l[i].ID))
		made[i], err = newPrompt(l[i].ID, l[i].Text, request, &l[i].Options, func(member string) string {
			return fmt.Sprintf("%s/%d/%s", at, i, member)
		})
		wrong.Add(err)
	}
	return made, wrong.Err()
}

// ReadJSON reads a body into v. Unknown and repeated members are errors, and so is
// text that is not UTF-8.
func ReadJSON(r io.Reader, v any) error {
	begun := &beginning{r: r}
	err := json.UnmarshalRead(begun, v, json.RejectUnknownMembers(true), unmarshalers)
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		if message := begun.otherEncoding(); message != "" {
			return &refersam.Error{Code: refersam.CodeMalformedRequest, Message: message, Err: err}
		}
	}
	return jsonError(err)
}

// beginning is a reader that remembers its first bytes.
type beginning struct {
	r    io.Reader
	head [4]byte
	n    int
}

// Read implements io.Reader.
func (b *beginning) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += copy(b.head[b.n:], p[:n])
	return n, err
}

// otherEncoding describes why the body is not UTF-8 or begins with a byte order
// mark; it returns "" if the first bytes show neither. JSON begins with two ASCII
// characters, so a zero byte shows an encoding of 16 or 32 bits.
func (b *beginning) otherEncoding() string {
	const remedy = "send UTF-8 without a byte order mark"
	head := string(b.head[:b.n])
	switch {
	case strings.HasPrefix(head, "\uFEFF"):
		return "The body begins with a byte order mark (EF BB BF), which is not valid JSON; " + remedy + "."
	case strings.HasPrefix(head, "\xff\xfe\x00\x00"), strings.HasPrefix(head, "\x00\x00\xfe\xff"):
		return "The body begins with the byte order mark of UTF-32, but JSON must be UTF-8; " + remedy + "."
	case strings.HasPrefix(head, "\xff\xfe"), strings.HasPrefix(head, "\xfe\xff"):
		return fmt.Sprintf("The body begins with the byte order mark of UTF-16 (% X), but JSON must be UTF-8; %s.", head[:2], remedy)
	case len(head) >= 2 && (head[0] == 0 || head[1] == 0):
		return "One of the body's first two bytes is zero, as in UTF-16 or UTF-32, but JSON must be UTF-8; " + remedy + "."
	}
	return ""
}

// jsonError distinguishes text that is not JSON from JSON that is not a request.
// Errors of reading are returned unchanged.
func jsonError(err error) error {
	var (
		domainErr *refersam.Error
		syntax    *jsontext.SyntacticError
		semantic  *json.SemanticError
	)
	switch {
	case errors.As(err, &domainErr):
		return domainErr
	case errors.As(err, &syntax):
		message := "The body is not valid JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			message = "The body contains a member twice"
		}
		return &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: fmt.Sprintf("%s (near byte %d).", message, syntax.ByteOffset),
			At:      refersam.Named(string(syntax.JSONPointer)),
			Err:     err,
		}
	case errors.As(err, &semantic):
		message := "The value is not " + wanted(semantic.GoType) + "."
		if errors.Is(err, json.ErrUnknownName) {
			message = fmt.Sprintf("The field %q does not exist here.", semantic.JSONPointer.LastToken())
		}
		return &refersam.Error{
			Code:    refersam.CodeInvalidRequest,
			Message: message,
			At:      refersam.Named(string(semantic.JSONPointer)),
			Err:     err,
		}
	default:
		return err
	}
}

// wanted describes, in JSON's terms, the value that t requires.
func wanted(t reflect.Type) string {
	if t == nil {
		return "allowed here"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct:
		return "an object"
	case reflect.Array:
		return fmt.Sprintf("an array of %d values", t.Len())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string of base64 (standard alphabet, padded, without line breaks)"
		}
		return "an array"
	default:
		return "allowed here"
	}
}
