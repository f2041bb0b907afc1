package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/googleapi"
)

const gcsLogin = "GOOGLE_APPLICATION_CREDENTIALS, or the service account of this machine"

// openGCS opens gs://bucket/prefix with the credentials of the environment; STORAGE_EMULATOR_HOST leads to an emulator, without any.
func openGCS(ctx context.Context, p place) (*cloud, string, error) {
	client := gcp.NewAnonymousHTTPClient(remoteTransport())
	if os.Getenv("STORAGE_EMULATOR_HOST") == "" {
		found, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, "", storeError(p.name, gcsLogin, fmt.Errorf("%w (%w)", errNoCredentials, err), reply{})
		}
		if client, err = gcp.NewHTTPClient(remoteTransport(), gcp.CredentialsTokenSource(found)); err != nil {
			return nil, "", fmt.Errorf("bucket %s: %w", p.name, err)
		}
	}
	bucket, err := gcsblob.OpenBucket(ctx, client, p.bucket, nil)
	if err != nil {
		return nil, "", fmt.Errorf("bucket %s: %w", p.name, err)
	}
	var own *storage.Client
	if !bucket.As(&own) {
		return nil, "", fmt.Errorf("bucket %s: its client is of another kind", p.name)
	}
	own.SetRetry(storage.WithPolicy(storage.RetryNever)) // see retrying
	c := &cloud{bucket: p.prefixed(bucket), reply: gcsReply}
	c.putLarge = func(ctx context.Context, r *retrier, key string, data []byte) error {
		return r.do(ctx, int64(len(data)), gcsReply, func(ctx context.Context) error { return gcsPutLarge(ctx, c.bucket, key, data) })
	}
	return c, gcsLogin, nil
}

// gcsPutLarge writes an object piece by piece in one upload, which the client resumes where a piece fails.
func gcsPutLarge(ctx context.Context, b *blob.Bucket, key string, data []byte) error {
	return b.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{
		ContentType: contentType, BufferSize: partBytes,
		BeforeWrite: func(as func(any) bool) error {
			var object **storage.ObjectHandle
			if as(&object) {
				*object = (*object).Retryer(storage.WithPolicy(storage.RetryAlways), storage.WithMaxAttempts(maxAttempts))
			}
			return nil
		},
	})
}

// gcsReply implements cloud.reply.
func gcsReply(err error) reply {
	var answered *googleapi.Error
	switch {
	case errors.As(err, &answered):
		return reply{status: answered.Code}
	case errors.Is(err, storage.ErrBucketNotExist):
		return reply{status: 404, code: "NoSuchBucket"}
	case errors.Is(err, storage.ErrObjectNotExist):
		return reply{status: 404}
	}
	return reply{}
}
