package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob/s3blob"
	"golang.org/x/sync/errgroup"
)

const (
	s3Login = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the role of this machine"
	// defaultS3Region is that of stores with an endpoint of their own, which mostly do not care.
	defaultS3Region = "us-east-1"
)

// s3Store is what the lake does by S3's own client rather than through the library, which copies each object twice on its way out, asks
// for an object before it deletes it, and sends a large object anew when one part fails.
type s3Store struct {
	client *s3.Client
	place  place
	// checksum is what parts are sent with; none where the environment says that the store wants none.
	checksum types.ChecksumAlgorithm
}

// openS3 opens s3://bucket/prefix. Region and credentials come from the AWS environment where the URI does not say. With an endpoint the
// bucket stands in the path, as most stores want it, unless path_style=false.
func openS3(ctx context.Context, p place) (*cloud, string, error) {
	endpoint, err := parseEndpoint(p)
	if err != nil {
		return nil, "", err
	}
	pathStyle := endpoint != ""
	if v := p.query.Get("path_style"); v != "" {
		if pathStyle, err = strconv.ParseBool(v); err != nil {
			return nil, "", fmt.Errorf("object store URI %s: path_style is true or false", p.name)
		}
	}
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithRegion(p.query.Get("region")),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // see retrying
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, idleConnections })),
	)
	if err != nil {
		return nil, "", fmt.Errorf("AWS configuration: %w", err)
	}
	if cfg.Region == "" && endpoint != "" {
		cfg.Region = defaultS3Region
	}
	if cfg.Region == "" {
		return nil, "", fmt.Errorf("object store URI %s: the region is not known; add ?region=… or set AWS_REGION", p.name)
	}
	cfg.Credentials = aws.NewCredentialsCache(s3Credentials{cfg.Credentials})
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = pathStyle
		o.DisableLogOutputChecksumValidationSkipped = true
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
	bucket, err := s3blob.OpenBucket(ctx, client, p.bucket, nil)
	if err != nil {
		return nil, "", fmt.Errorf("bucket %s: %w", p.name, err)
	}
	s := &s3Store{client: client, place: p}
	if client.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenSupported {
		s.checksum = types.ChecksumAlgorithmCrc32
	}
	return &cloud{bucket: p.prefixed(bucket), reply: s3Reply, put: s.put, remove: s.remove, putLarge: s.putLarge, sweep: s.sweep}, s3Login, nil
}

// parseEndpoint returns the endpoint of the URI, without a slash at the end; empty when it names none.
func parseEndpoint(p place) (string, error) {
	text := p.query.Get("endpoint")
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return "", fmt.Errorf("object store URI %s: endpoint: want http://host:port or https://host, without credentials or a path", p.name)
	}
	return u.Scheme + "://" + u.Host, nil
}

// s3Credentials marks the failure to find credentials.
type s3Credentials struct{ aws.CredentialsProvider }

// Retrieve implements aws.CredentialsProvider.
func (c s3Credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return found, fmt.Errorf("%w (%w)", errNoCredentials, err)
	}
	return found, nil
}

// s3Reply implements cloud.reply.
func s3Reply(err error) (r reply) {
	var answered interface{ HTTPStatusCode() int }
	if errors.As(err, &answered) {
		r.status = answered.HTTPStatusCode()
	}
	if said, ok := errors.AsType[smithy.APIError](err); ok {
		r.code = said.ErrorCode()
	}
	// The client calls it so when it had signed for a time that the reply shows to be wrong.
	var again interface{ RetryableError() bool }
	if errors.As(err, &again) && again.RetryableError() && r.status/100 == 4 {
		r.code = "RequestTimeTooSkewed"
	}
	return r
}

func (s *s3Store) key(key string) *string { return aws.String(s.place.prefix + key) }

func (s *s3Store) put(ctx context.Context, key string, data []byte, onlyNew bool) error {
	in := &s3.PutObjectInput{
		Bucket: &s.place.bucket, Key: s.key(key), Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
		ContentType: aws.String(contentType),
	}
	if onlyNew {
		in.IfNoneMatch = aws.String("*")
	}
	_, err := s.client.PutObject(ctx, in)
	return err
}

func (s *s3Store) remove(ctx context.Context, key string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.place.bucket, Key: s.key(key)})
	return err
}

// putLarge implements cloud.putLarge. Parts that an interrupted process leaves behind are swept.
func (s *s3Store) putLarge(ctx context.Context, r *retrier, key string, data []byte) error {
	var id *string
	err := r.do(ctx, 0, s3Reply, func(ctx context.Context) error {
		out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: &s.place.bucket, Key: s.key(key), ContentType: aws.String(contentType), ChecksumAlgorithm: s.checksum,
		})
		if err == nil {
			id = out.UploadId
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("begin upload in parts: %w", err)
	}
	parts, err := s.putParts(ctx, r, key, id, data)
	if err == nil {
		err = s.complete(ctx, r, key, id, parts, int64(len(data)))
	}
	if err != nil {
		return errors.Join(err, s.abort(context.WithoutCancel(ctx), key, id))
	}
	return nil
}

func (s *s3Store) putParts(ctx context.Context, r *retrier, key string, id *string, data []byte) ([]types.CompletedPart, error) {
	parts := make([]types.CompletedPart, (len(data)+partBytes-1)/partBytes)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for i := range parts {
		body := data[i*partBytes : min((i+1)*partBytes, len(data))]
		no := aws.Int32(int32(i + 1))
		g.Go(func() error {
			return r.do(ctx, int64(len(body)), s3Reply, func(ctx context.Context) error {
				out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
					Bucket: &s.place.bucket, Key: s.key(key), UploadId: id, PartNumber: no, Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
					ChecksumAlgorithm: s.checksum,
				})
				if err != nil {
					return err
				}
				parts[i] = types.CompletedPart{PartNumber: no, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("upload part: %w", err)
	}
	return parts, nil
}

// complete makes an object of the parts. After a lost reply the upload is gone, which stores word in many ways, and the object
// says whether it was completed.
func (s *s3Store) complete(ctx context.Context, r *retrier, key string, id *string, parts []types.CompletedPart, size int64) error {
	attempts := 0
	err := r.do(ctx, size, s3Reply, func(ctx context.Context) error {
		attempts++
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.place.bucket, Key: s.key(key), UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		if err == nil || attempts == 1 || judge(err, s3Reply(err)) != permanent {
			return err
		}
		found, headErr := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.place.bucket, Key: s.key(key)})
		if headErr == nil && aws.ToInt64(found.ContentLength) == size {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("complete upload in parts: %w", err)
	}
	return nil
}

// abort gives back the space of parts; a failure is the sweep's to repair.
func (s *s3Store) abort(ctx context.Context, key string, id *string) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.place.bucket, Key: s.key(key), UploadId: id})
	if err != nil {
		return fmt.Errorf("abort upload in parts: %w", err)
	}
	return nil
}

// sweep aborts uploads of the lake's objects that were begun before that time, one page of them.
func (s *s3Store) sweep(ctx context.Context, before time.Time) (removed int, err error) {
	out, err := s.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &s.place.bucket, Prefix: aws.String(s.place.prefix)})
	if err != nil {
		return 0, err
	}
	for _, u := range out.Uploads {
		if !aws.ToTime(u.Initiated).Before(before) || !collected(strings.TrimPrefix(aws.ToString(u.Key), s.place.prefix)) {
			continue
		}
		_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.place.bucket, Key: u.Key, UploadId: u.UploadId})
		if err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
