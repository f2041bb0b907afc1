package lake

import (
	"context"
	"errors"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// OpenBucket opens the bucket at a URI, without the lake's formats.
func OpenBucket(ctx context.Context, uri string) (Bucket, error) {
	return openBucket(ctx, uri, Options{})
}

// MakeBucket makes the bucket or container at a URI.
func MakeBucket(ctx context.Context, uri, name string) error {
	b, err := OpenBucket(ctx, uri)
	if err != nil {
		return err
	}
	defer b.Close()
	under := b.(*retrying).cloud.bucket
	var google *storage.Client
	var azure *container.Client
	switch {
	case under.As(&google):
		return google.Bucket(name).Create(ctx, "project", nil)
	case under.As(&azure):
		_, err := azure.Create(ctx, nil)
		return err
	}
	return errors.New("a bucket of another kind")
}
