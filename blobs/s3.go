package blobs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// openTimeout bounds the first request, including the search for credentials.
	openTimeout = 10 * time.Second
	// credentialsTimeout bounds each request for credentials of a role. minio-go
	// does not end these with the context of the request that needs them.
	credentialsTimeout = 5 * time.Second
	// maxTries limits the tries of a request. Clients retry too, so a few suffice.
	maxTries = 3
	// defaultRegion is the region of a server that is not AWS and has none.
	defaultRegion = "us-east-1"
)

// s3 stores objects in a bucket.
type s3 struct {
	client         minio.Core
	transport      *http.Transport
	bucket, prefix string
}

// openS3 opens a bucket, and fails if it does not exist. Otherwise every object
// would seem deleted.
func openS3(ctx context.Context, u URL) (*s3, error) {
	a, err := u.parse()
	if err != nil {
		return nil, err
	}
	if env := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL")); a.endpoint == nil && env != "" {
		if a.endpoint, err = parseEndpoint(env); err != nil {
			return nil, fmt.Errorf("AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL: %w", err)
		}
	}
	region := cmp.Or(a.region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	host, secure := "s3."+region+".amazonaws.com", true
	switch {
	case a.endpoint != nil:
		host, secure = a.endpoint.Host, a.endpoint.Scheme == "https"
		region = cmp.Or(region, defaultRegion)
	case region == "":
		return nil, errors.New("there is no region: give region=… or AWS_REGION, or endpoint=… for a server other than AWS")
	}
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupDNS
	if a.pathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.New(host, &minio.Options{
		Creds: newCredentials(a.profile), Secure: secure, Transport: transport, Region: region, BucketLookup: lookup, MaxRetries: maxTries,
	})
	if err != nil {
		return nil, err
	}
	client.SetS3EnableDualstack(false) // private endpoints of AWS do not serve the dual-stack names
	s := &s3{minio.Core{Client: client}, transport, a.bucket, a.prefix}
	first, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	exists, err := client.BucketExists(first, a.bucket)
	if err == nil && !exists {
		err = fmt.Errorf("the bucket %q does not exist on %s; create it, or name another one", a.bucket, host)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// put sends the object with its MD5, so that the server refuses content that was
// damaged on the way. One request writes the whole object: S3 shows it complete
// or not at all.
func (s *s3) put(ctx context.Context, name string, content []byte) error {
	_, err := s.client.Client.PutObject(ctx, s.bucket, s.prefix+name, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{
		ContentType: "application/octet-stream", SendContentMd5: true, DisableMultipart: true,
	})
	return err
}

func (s *s3) get(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	content, info, _, err := s.client.GetObject(ctx, s.bucket, s.prefix+name, minio.GetObjectOptions{})
	return content, info.Size, orMissing(err)
}

func (s *s3) size(ctx context.Context, name string) (int64, error) {
	info, err := s.client.StatObject(ctx, s.bucket, s.prefix+name, minio.StatObjectOptions{})
	return info.Size, orMissing(err)
}

func (s *s3) remove(ctx context.Context, name string) error {
	err := orMissing(s.client.RemoveObject(ctx, s.bucket, s.prefix+name, minio.RemoveObjectOptions{}))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (s *s3) walk(ctx context.Context, visit func(name string, modified time.Time) error) error {
	for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true}) {
		if o.Err != nil {
			return o.Err
		}
		if err := visit(strings.TrimPrefix(o.Key, s.prefix), o.LastModified); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *s3) close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// orMissing returns ErrNotFound for the server's error of a missing object.
func orMissing(err error) error {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.Code == minio.NoSuchKey {
		return ErrNotFound
	}
	return err
}

// providers searches for credentials where AWS's tools do. Unlike the chain of
// minio-go it fails if it finds none, instead of sending anonymous requests.
type providers struct {
	list  []credentials.Provider
	found credentials.Provider
}

func newCredentials(profile string) *credentials.Credentials {
	list := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{Profile: profile}}
	if profile != "" {
		list = list[1:]
	}
	if os.Getenv("AWS_EC2_METADATA_DISABLED") != "true" || os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" ||
		os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" || os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "" {
		list = append(list, &credentials.IAM{Client: &http.Client{Timeout: credentialsTimeout}})
	}
	return credentials.New(&providers{list: list})
}

// RetrieveWithCredContext implements credentials.Provider.
func (p *providers) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	var errs []error
	for _, provider := range p.list {
		v, err := provider.RetrieveWithCredContext(cc)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			p.found = provider
			return v, nil
		}
		errs = append(errs, err)
	}
	return credentials.Value{}, errors.Join(append(errs, errNoCredentials)...)
}

var errNoCredentials = errors.New("no credentials were found; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in the AWS files, or the machine a role")

// Retrieve implements credentials.Provider.
func (p *providers) Retrieve() (credentials.Value, error) { return p.RetrieveWithCredContext(nil) }

// IsExpired implements credentials.Provider.
func (p *providers) IsExpired() bool { return p.found == nil || p.found.IsExpired() }
