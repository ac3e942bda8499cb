package blobs

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
)

// Config sets where objects are stored.
type Config struct {
	// URL is a bucket, as s3://name?region=eu-central-1. Options are region,
	// endpoint=https://… for a server other than AWS, prefix=… for a part of the
	// bucket, use_path_style=true for a server without a host name per bucket, and
	// profile=… of the AWS files. Credentials come from the AWS variables and
	// files. Default none: the folder blobs in REFERSAM_DATA.
	URL URL `env:"REFERSAM_BLOBS_URL"`
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	if c.URL == "" {
		return nil
	}
	_, err := c.URL.parse()
	return err
}

// URL is the address of a bucket.
type URL string

// String returns the address without credentials, also for an address that is
// refused because it holds some.
func (u URL) String() string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return "(not a URL)"
	}
	query := parsed.Query()
	if endpoint, err := url.Parse(query.Get("endpoint")); err != nil || endpoint.User != nil {
		query.Set("endpoint", "xxxxx")
		parsed.RawQuery = query.Encode()
	}
	if parsed.User != nil {
		parsed.User = url.User("xxxxx")
	}
	return parsed.String()
}

// address is a parsed URL. Empty fields were not given.
type address struct {
	bucket, prefix, region, profile string
	endpoint                        *url.URL // nil if not given
	pathStyle                       bool
}

func (u URL) parse() (*address, error) {
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Scheme != "s3" || parsed.Host == "" {
		return nil, fmt.Errorf("REFERSAM_BLOBS_URL is %q, allowed: s3://bucket?region=…", u.String())
	}
	if parsed.User != nil {
		return nil, errors.New("REFERSAM_BLOBS_URL must not hold credentials;" + giveCredentials)
	}
	if parsed.Path != "" && parsed.Path != "/" {
		return nil, fmt.Errorf("REFERSAM_BLOBS_URL has the path %q, allowed: prefix=… for a part of the bucket", parsed.Path)
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_BLOBS_URL is %q, allowed options: name=value&name=value", u.String())
	}
	a := &address{bucket: parsed.Host}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(name)
		switch name {
		case "region":
			a.region = value
		case "prefix":
			a.prefix = value
		case "profile":
			a.profile = value
		case "endpoint":
			if a.endpoint, err = parseEndpoint(value); err != nil {
				return nil, fmt.Errorf("REFERSAM_BLOBS_URL is %q: %w", u.String(), err)
			}
		case "use_path_style":
			if a.pathStyle, err = strconv.ParseBool(value); err != nil {
				return nil, fmt.Errorf("REFERSAM_BLOBS_URL has use_path_style=%s, allowed: true or false", value)
			}
		default:
			return nil, fmt.Errorf("REFERSAM_BLOBS_URL has the option %q, allowed: region, endpoint, prefix, use_path_style and profile", name)
		}
	}
	return a, nil
}

const giveCredentials = " give credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

// parseEndpoint reads the address of a server. Its errors do not show the
// address, which may hold a secret.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("its endpoint is not a URL, allowed: https://host or https://host:port")
	case u.User != nil:
		return nil, errors.New("its endpoint holds credentials, allowed: https://host or https://host:port;" + giveCredentials)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("its endpoint has another form, allowed: https://host or https://host:port")
	}
	return u, nil
}
