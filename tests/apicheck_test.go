package tests_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// neverHere are operations that cannot succeed on a service without webhooks, and
// the operation that Schemathesis itself requests before its hooks are loaded.
var neverHere = []string{"POST /v1/jobs/{id}/webhook/redeliver", "GET /openapi.json"}

// TestAPICheck runs Schemathesis, which checks a running service against its own
// description: make api-check. API_CHECK_CASES is about how many cases it makes,
// and SCHEMATHESIS is the program.
func TestAPICheck(t *testing.T) {
	cases, err := strconv.Atoi(os.Getenv("API_CHECK_CASES"))
	if err != nil {
		t.Skip("no API_CHECK_CASES; make api-check sets it")
	}
	s := serveBefore(t, nil, startNull(t).address)
	report := filepath.Join(t.TempDir(), "answers.json")
	// Only a third of the operations have parameters to vary.
	examples := max(10, cases/11)
	command := exec.Command(os.Getenv("SCHEMATHESIS"), "--config-file", "schemathesis.toml", "run", s.url+"/openapi.json",
		"--max-examples", strconv.Itoa(examples), "--continue-on-failure", "--workers", "2", "--no-shrink", "--seed", "1", "--warnings", "off")
	command.Dir = filepath.Join(repositoryRoot, "tests", "apicheck")
	command.Env = append(os.Environ(), "SCHEMATHESIS_HOOKS=hooks", "API_CHECK_ANSWERS="+report)
	out, err := command.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("Schemathesis: %v", err)
	}
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var answers map[string]map[string]int
	if err := json.Unmarshal(data, &answers); err != nil {
		t.Fatal(err)
	}
	total, byStatus := 0, map[string]int{}
	for _, operation := range describedOperations(t, s.service) {
		succeeded := false
		for status, n := range answers[operation] {
			total += n
			byStatus[status] += n
			succeeded = succeeded || strings.HasPrefix(status, "2")
		}
		t.Logf("%-45s %v", operation, answers[operation])
		if !succeeded && !slices.Contains(neverHere, operation) {
			t.Errorf("%s never succeeded: %v", operation, answers[operation])
		}
	}
	t.Logf("%d requests to operations that are described, by status: %v", total, byStatus)
	if total < cases {
		t.Errorf("%d requests are fewer than %d", total, cases)
	}
	if log := s.logs.String(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
		t.Errorf("the log tells faults:\n%s", log)
	}
}

// describedOperations are the operations of the description, as "GET /v1/models".
func describedOperations(t *testing.T, s *service) []string {
	t.Helper()
	resp, err := client.Get(s.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var document struct {
		Paths map[string]map[string]any
	}
	if err := json.NewDecoder(resp.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	var all []string
	for path, methods := range document.Paths {
		for method := range methods {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(all)
	return all
}
