package lake

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
)

// wantURI lists the kinds of URI, for refusals.
const wantURI = "want file:///folder, s3://bucket/prefix?region=…, gs://bucket/prefix, azblob://container/prefix or mem://"

// openers open the buckets beyond a network. What a URI may say behind the question mark is listed beside each.
var openers = map[string]struct {
	parameters []string
	open       func(context.Context, place) (*cloud, string, error) // and where its credentials come from
}{
	"s3":     {[]string{"region", "endpoint", "path_style"}, openS3},
	"gs":     {nil, openGCS},
	"azblob": {[]string{"account"}, openAzure},
}

// place is what the URI of a remote bucket says.
type place struct {
	bucket string
	prefix string // empty, or ends with a slash
	query  url.Values
	name   string // the URI: it holds no secrets, or would have been refused
}

// openBucket opens the bucket at a URI. Errors do not show what may be a credential.
func openBucket(ctx context.Context, uri string, opts Options) (Bucket, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, errors.New("object store URI: not a URI; " + wantURI) // the text may hold credentials
	}
	if u.User != nil {
		return nil, fmt.Errorf("object store URI %s://…: credentials do not belong in it; they come from the environment", u.Scheme)
	}
	if o, ok := openers[u.Scheme]; ok {
		p, err := parsePlace(u, o.parameters)
		if err != nil {
			return nil, err
		}
		c, login, err := o.open(ctx, p)
		if err != nil {
			return nil, err
		}
		return &retrying{cloud: c, name: p.name, login: login}, nil
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("object store URI %s://…: query and fragment mean nothing here", u.Scheme)
	}
	switch u.Scheme {
	case "file":
		fsys := opts.FS
		if fsys == nil {
			fsys = OS()
		}
		dir, err := filePath(u)
		if err != nil {
			return nil, err
		}
		return NewFolder(dir, fsys)
	case "mem":
		if u.Host != "" || u.Path != "" {
			return nil, fmt.Errorf("object store URI %s: memory has no path; want mem://", uri)
		}
		return NewCloud(memblob.OpenBucket(nil)), nil
	}
	return nil, fmt.Errorf("object store URI: scheme %q is not supported; %s", u.Scheme, wantURI)
}

// parsePlace refuses what it does not understand: a misspelt parameter that is ignored leads to another bucket.
func parsePlace(u *url.URL, parameters []string) (place, error) {
	p := place{bucket: u.Host, prefix: strings.Trim(u.Path, "/"), name: u.Scheme + "://" + u.Host + u.Path}
	if p.bucket == "" || u.Port() != "" || u.Fragment != "" || u.Opaque != "" {
		return p, fmt.Errorf("object store URI %s://…: want %s://bucket or %s://bucket/prefix", u.Scheme, u.Scheme, u.Scheme)
	}
	if p.prefix != "" {
		if err := checkKey(p.prefix); err != nil {
			return p, fmt.Errorf("object store URI %s: prefix: %w", p.name, err)
		}
		p.prefix += "/"
	}
	var err error
	if p.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return p, fmt.Errorf("object store URI %s: the part behind the question mark cannot be read", p.name)
	}
	for key, values := range p.query {
		if !slices.Contains(parameters, key) {
			return p, fmt.Errorf("object store URI %s: parameter %q is not known; %s", p.name, key, known(parameters))
		}
		if len(values) != 1 || values[0] == "" {
			return p, fmt.Errorf("object store URI %s: parameter %q must have one value", p.name, key)
		}
	}
	return p, nil
}

func known(parameters []string) string {
	if len(parameters) == 0 {
		return "there are none, and credentials come from the environment"
	}
	return "known are " + strings.Join(parameters, ", ") + ", and credentials come from the environment"
}

// prefixed is the part of a bucket below a prefix.
func (p place) prefixed(b *blob.Bucket) *blob.Bucket {
	if p.prefix == "" {
		return b
	}
	return blob.PrefixedBucket(b, p.prefix)
}

// filePath is the absolute path of a file URI.
func filePath(u *url.URL) (string, error) {
	if u.Host != "" && u.Host != "localhost" {
		return "", fmt.Errorf("object store URI %s: want three slashes and an absolute path, as in file:///var/lib/micromegas", u)
	}
	path := u.Path
	if runtime.GOOS == "windows" && len(path) > 2 && path[0] == '/' && path[2] == ':' {
		path = path[1:] // file:///C:/lake
	}
	path = filepath.FromSlash(path)
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("object store URI %s: the path must be absolute, as in file:///var/lib/micromegas", u)
	}
	return path, nil
}

// FolderURI is the URI of a folder bucket.
func FolderURI(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path := filepath.ToSlash(abs)
	if path[0] != '/' {
		path = "/" + path
	}
	return (&url.URL{Scheme: "file", Path: path}).String(), nil
}
