package client

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
)

// encode writes a body. A value that JSON cannot express is CodeInvalidRequest, and
// the error gives its place as a JSON pointer, as the service's errors do.
func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	var text *jsontext.SyntacticError
	var number *json.SemanticError
	switch {
	case errors.As(err, &text):
		return nil, &refersam.Error{Code: refersam.CodeInvalidRequest, Message: "The text is not UTF-8; convert it to UTF-8.", At: refersam.Named(string(text.JSONPointer)), Err: err}
	case errors.As(err, &number):
		return nil, &refersam.Error{Code: refersam.CodeInvalidRequest, Message: "The number is not finite; give a finite number.", At: refersam.Named(string(number.JSONPointer)), Err: err}
	}
	return body, err
}

// decode reads JSON that the service has written.
func decode(data []byte, v any) error {
	return json.Unmarshal(data, v, json.MatchCaseInsensitiveNames(true))
}

// milliseconds is a duration as the service writes it.
func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
