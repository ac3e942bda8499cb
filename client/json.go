package client

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
)

// encode writes a body. What JSON has no way to write is CodeInvalidRequest, and
// its place is named as the service names places.
func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	var text *jsontext.SyntacticError
	var number *json.SemanticError
	switch {
	case errors.As(err, &text):
		return nil, &refersam.Error{Code: refersam.CodeInvalidRequest, Message: "The text is not UTF-8; convert it.", Field: string(text.JSONPointer), Err: err}
	case errors.As(err, &number):
		return nil, &refersam.Error{Code: refersam.CodeInvalidRequest, Message: "The number is not finite; give another.", Field: string(number.JSONPointer), Err: err}
	}
	return body, err
}

// decode reads what the service has written.
func decode(data []byte, v any) error {
	return json.Unmarshal(data, v, json.MatchCaseInsensitiveNames(true), json.WithUnmarshalers(durations))
}

// durations are milliseconds wherever the service writes them.
var durations = json.UnmarshalFromFunc(func(d *jsontext.Decoder, v *time.Duration) error {
	var ms float64
	if err := json.UnmarshalDecode(d, &ms); err != nil {
		return err
	}
	*v = time.Duration(ms * float64(time.Millisecond))
	return nil
})
