package tests_test

import (
	"fmt"
	"math"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A fresh service answers its first requests as fast as later ones, and refuses no
// request that it could answer in time.
func TestFreshService(t *testing.T) {
	dir := t.TempDir()
	admin, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s, err := launch(dir, []string{"REFERSAM_ADMIN_LISTEN=" + admin}, "up", "--data", filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	for _, variant := range variants {
		var took []time.Duration
		for range 20 {
			reply, d := s.askOnce(t, variant, 0)
			if reply.status != http.StatusOK {
				t.Fatalf("%s: status %d: %s", variant, reply.status, reply.body)
			}
			took = append(took, d)
		}
		t.Logf("%s: %v", variant, took)
		// Other programs slow single requests down, so the first five count, and
		// three times the usual duration is allowed. With blank rows beside them
		// they took six times as long.
		usual := middle(took[5:])
		var sum time.Duration
		for _, d := range took[:5] {
			sum += d
		}
		if first := sum / 5; first > 3*usual {
			t.Errorf("%s: the first five requests took %v each, later ones %v", variant, first, usual)
		}
		s.expectAdmitted(t, variant)
	}

	out, err := exec.Command(executable, "batching", "--admin", admin).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, variant := range variants {
		line := regexp.MustCompile(`refersam_` + variant + `:\S+ +1 row (\d+) ms, .*8 rows (?:about )?\d+ ms; when busy one every .*up to [\d.]+ times as long`).FindSubmatch(out)
		if line == nil {
			t.Fatalf("nothing about one row of %s in\n%s", variant, out)
		}
		var took []time.Duration
		for range 5 {
			_, d := s.askOnce(t, variant, 0)
			took = append(took, d)
		}
		believed, _ := strconv.Atoi(string(line[1]))
		if usual := middle(took); time.Duration(believed)*time.Millisecond > 3*usual {
			t.Errorf("a row of %s is believed to take %d ms, requests take %v", variant, believed, usual)
		}
	}
}

// expectAdmitted sends 100 requests one after the other, with a deadline of
// three times what they take, and expects none to be refused. If other
// programs take the CPU long enough, the forecast rightly grows and requests are
// refused. So there are three rounds, and one without a refusal is enough.
func (s *service) expectAdmitted(t *testing.T, variant string) {
	t.Helper()
	var rounds []string
	for range 3 {
		refused, late := 0, 0
		var took []time.Duration
		for i := range 100 {
			if i%10 == 0 {
				for range 3 {
					_, d := s.askOnce(t, variant, 0)
					took = append(took, d)
				}
			}
			switch reply, _ := s.askOnce(t, variant, 3*middle(took)); {
			case reply.status == http.StatusOK:
			case reply.status == http.StatusGatewayTimeout && !strings.Contains(string(reply.body), "cannot be met"):
				late++
			case reply.status == http.StatusGatewayTimeout, reply.status == http.StatusServiceUnavailable:
				refused++
			default:
				t.Fatalf("%s: status %d: %s", variant, reply.status, reply.body)
			}
		}
		if refused == 0 && late <= 10 {
			return
		}
		rounds = append(rounds, fmt.Sprintf("%d refused and %d late of 100 with a deadline of %v", refused, late, 3*middle(took)))
	}
	t.Errorf("%s: %s", variant, strings.Join(rounds, "; "))
}

// phraseNumber makes new phrases, because a cache would answer repeated ones.
var phraseNumber int

// askOnce asks for one phrase and returns the answer and how long it took.
func (s *service) askOnce(t *testing.T, variant string, deadline time.Duration) (reply, time.Duration) {
	t.Helper()
	phraseNumber++
	picture := scenes(t)[phraseNumber%len(scenes(t))].picture(t)
	parts := []part{{"image", string(picture)}, {"variant", variant}, {"phrase", fmt.Sprintf("the red square, number %d", phraseNumber)}}
	if deadline > 0 {
		parts = append(parts, part{"deadline_ms", strconv.Itoa(int(math.Ceil(deadline.Seconds() * 1000)))})
	}
	contentType, body := form(t, parts...)
	begun := time.Now()
	return s.post(t, contentType, body), time.Since(begun)
}

func middle(durations []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(durations))[len(durations)/2]
}
