package client_test

import (
	"archive/zip"
	"bytes"
	"image/png"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/client"
	"github.com/refersam/refersam/pipeline/pipelinetest"
)

// submit creates a job of one phrase, in a form that other clients may use, and
// waits for its end.
func submit(t *testing.T, c *client.Client, url, key, accept string, formats ...string) *client.Job {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"image": api.Picture{Data: pipelinetest.Squares()}, "prompts": []map[string]string{{"text": "red"}},
		"output": map[string]any{"formats": formats}, "variant": "clip",
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/segment", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {accept}, "Prefer": {"respond-async"}, "Authorization": {"Bearer " + key}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	j := new(client.Job)
	if err := json.UnmarshalRead(resp.Body, j); err != nil {
		t.Fatal(err)
	}
	if j, err = c.Wait(t.Context(), j.ID, nil); err != nil || j.Err() != nil {
		t.Fatalf("%+v, %v", j, err)
	}
	return j
}

// The answers of jobs that other programs have submitted are read, or their form is
// reported and RawResult returns them.
func TestResultForms(t *testing.T) {
	s := start(t)
	key := s.key(t)
	c, err := client.New(s.url, client.WithKey(key))
	if err != nil {
		t.Fatal(err)
	}
	want, err := c.Segment(t.Context(), &refersam.Request{Image: pipelinetest.Squares(), Variant: "clip", Phrases: []refersam.Phrase{{Text: "red"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		accept  string
		formats []string
		says    string // in the error; "" if the answer is read
	}{
		{"application/json", []string{"rle"}, ""},
		{"application/json", []string{"polygon", "coco_rle", "png"}, ""},
		{"application/json", []string{"png", "polygon"}, "png, polygon"},
		{"image/png", []string{"png8"}, "image/png"},
		{"application/zip", []string{"coco_rle"}, "application/zip"},
		{"multipart/mixed", []string{"coco_rle"}, "multipart/mixed"},
	} {
		t.Run(tc.accept+" "+strings.Join(tc.formats, ","), func(t *testing.T) {
			j := submit(t, c, s.url, key, tc.accept, tc.formats...)
			a, err := c.Result(t.Context(), j.ID, 0)
			if tc.says != "" {
				if refersam.ErrorCode(err) != refersam.CodeNotAcceptable || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "RawResult") {
					t.Errorf("%v", err)
				}
			} else if err != nil {
				t.Error(err)
			} else if diff := cmp.Diff(want.Results, a.Results, cmpopts.IgnoreFields(refersam.Result{}, "Origin")); diff != "" {
				t.Error(diff)
			}
			raw, err := c.RawResult(t.Context(), j.ID, 0)
			if err != nil || !strings.HasPrefix(raw.Header.Get("Content-Type"), tc.accept) {
				t.Fatalf("%+v, %v", raw, err)
			}
			switch tc.accept {
			case "image/png":
				if _, err := png.Decode(bytes.NewReader(raw.Body)); err != nil || raw.Header.Get("X-Refersam-Area") != strconv.Itoa(want.Results[0].Area) {
					t.Errorf("%v, %v", raw.Header, err)
				}
			case "application/zip":
				if _, err := zip.NewReader(bytes.NewReader(raw.Body), int64(len(raw.Body))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := c.RawResult(t.Context(), "job_1", 0); refersam.ErrorCode(err) != refersam.CodeJobNotFound {
		t.Errorf("%v", err)
	}
}
