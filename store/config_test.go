package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam/store"
)

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  store.Config
		want string // in the error; "" for none
	}{
		{"defaults", store.DefaultConfig(), ""},
		{"no folder", store.Config{}, "REFERSAM_DATA"},
		{"PostgreSQL", store.Config{DatabaseURL: "postgres://u:p@h:5432/d?sslmode=disable"}, ""},
		{"another database", store.Config{DatabaseURL: "mysql://u:secret@h/d"}, "postgres://"},
		{"no URL", store.Config{DatabaseURL: "postgres://u:secret@h:port/d"}, "REFERSAM_DATABASE_URL"},
		{"a bad option", store.Config{DatabaseURL: "postgres://u:secret@h/d?sslmode=maybe"}, "REFERSAM_DATABASE_URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.cfg.Validate()
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%v, want an error with %q", err, tc.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the password is in %v", err)
			}
		})
	}
}

// An address is shown without its password.
func TestURL(t *testing.T) {
	for in, want := range map[store.URL]string{
		"postgres://u:secret@h/d":              "postgres://u:xxxxx@h/d",
		"postgres://u@/d?password=secret":      "postgres://u@/d?password=xxxxx",
		"postgres://u:secret@h:port/d":         "(not a URL)",
		"":                                     "",
		"postgres://u@h/d?sslmode=verify-full": "postgres://u@h/d?sslmode=verify-full",
	} {
		if got := in.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]store.Rate{
		"10/s":   {Requests: 10, Window: time.Second},
		"600/m":  {Requests: 600, Window: time.Minute},
		"1/h":    {Requests: 1, Window: time.Hour},
		"5000/d": {Requests: 5000, Window: 24 * time.Hour},
	} {
		got, err := store.ParseRate(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "10", "10/", "/s", "0/s", "-1/s", "1.5/s", "10/w", "10/s ", "10000000000/s"} {
		if _, err := store.ParseRate(in); err == nil {
			t.Errorf("%q is a rate", in)
		}
	}
}

func TestParseToken(t *testing.T) {
	s := open(t, store.Config{Data: t.TempDir()})
	token := create(t, s, store.Key{Name: "a"})
	got, err := store.ParseToken(token.Reveal())
	if err != nil || got != token {
		t.Errorf("%v: %v", got, err)
	}
	if strings.Contains(token.String(), token.Secret) {
		t.Error("String has the secret in it")
	}
	for _, in := range []string{"", "rsk_", token.ID, token.Reveal() + "a", token.Reveal()[1:], "RSK" + token.Reveal()[3:], strings.ToUpper(token.Reveal())} {
		if _, err := store.ParseToken(in); err == nil || strings.Contains(err.Error(), token.Secret) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
