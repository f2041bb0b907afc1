package lake

import (
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

// Uploads in parts that nobody completed are swept when they are old, those of the lake's objects only.
func TestInterruptedUploadsAreSwept(t *testing.T) {
	server, err := parts.StartS3(t.Context(), t.TempDir())
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("this test needs an S3 server, which is built from deploy/tools/go.mod: %v", err)
	}
	defer server.Stop()
	server.Setenv(t.Setenv)
	b, err := OpenBucket(t.Context(), server.URI("lake"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var client *s3.Client
	if !b.(*retrying).cloud.bucket.As(&client) {
		t.Fatal("the bucket has no client")
	}
	for _, key := range []string{"views/a", "packs/b", "elsewhere/c"} {
		if _, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("lake"), Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 0}, {time.Now().Add(time.Hour), 2}, {time.Now().Add(time.Hour), 0}} {
		if n, err := b.(sweeper).SweepTemp(t.Context(), c.before); n != c.want || err != nil {
			t.Errorf("swept %d, %v; want %d", n, err, c.want)
		}
	}
}
