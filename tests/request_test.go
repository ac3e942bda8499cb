package tests_test

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"testing"

	"github.com/refersam/refersam/api"
)

// The bodies of answers and of errors. The tests of package gateway read the
// documented names with types of their own, so a renamed tag does not go unnoticed.
type (
	answer  = api.Answer
	problem = api.Problem
)

// part is one field of a form. The field called image is sent as a file.
type part struct{ name, value string }

// form makes a multipart body and its content type.
func form(t *testing.T, parts ...part) (contentType string, body []byte) {
	t.Helper()
	contentType, body, err := encodeForm(parts...)
	if err != nil {
		t.Fatal(err)
	}
	return contentType, body
}

func encodeForm(parts ...part) (contentType string, body []byte, err error) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, p := range parts {
		create := w.CreateFormField
		if p.name == "image" {
			create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, "picture") }
		}
		field, err := create(p.name)
		if err != nil {
			return "", nil, err
		}
		if _, err := io.WriteString(field, p.value); err != nil {
			return "", nil, err
		}
	}
	err = w.Close()
	return w.FormDataContentType(), buf.Bytes(), err
}

// reply is an HTTP response with its whole body.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// post sends a body to /v1/segment; headers are pairs of name and value.
func (s *service) post(t *testing.T, contentType string, body []byte, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/segment", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, data}
}

// segment asks for a picture and phrases in a form and expects an answer.
func (s *service) segment(t *testing.T, unit string, parts ...part) answer {
	t.Helper()
	contentType, body := form(t, parts...)
	return s.post(t, contentType, body, "X-Unit-Id", unit).answer(t)
}

// answer reads the body of a success.
func (r reply) answer(t *testing.T) answer {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	var a answer
	if err := json.Unmarshal(r.body, &a); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return a
}

// expectProblem checks that the reply is a complete problem with a status and code.
func (r reply) expectProblem(t *testing.T, status int, code string) {
	t.Helper()
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("status %d of type %q: %s", r.status, got, r.body)
	}
	var p problem
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	if r.status != status || string(p.Code) != code {
		t.Errorf("status %d, code %q, want %d, %q: %s", r.status, p.Code, status, code, r.body)
	}
	if p.Status != r.status || p.Type == "" || p.Title == "" || p.Detail == "" || p.RequestID == "" {
		t.Errorf("an incomplete problem: %s", r.body)
	}
}
