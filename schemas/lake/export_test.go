package lake

import "context"

// OpenBucket opens the bucket at a URI, without the lake's formats.
func OpenBucket(ctx context.Context, uri string) (Bucket, error) {
	return openBucket(ctx, uri, Options{})
}
