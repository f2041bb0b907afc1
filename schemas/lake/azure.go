package lake

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/google/uuid"
	"gocloud.dev/blob/azureblob"
	"golang.org/x/sync/errgroup"
)

const azureLogin = "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, or the identity of this machine"

// openAzure opens azblob://container/prefix?account=…. Account, domain and credentials come from the environment, as azureblob reads
// it, where the URI does not say.
func openAzure(ctx context.Context, p place) (*cloud, string, error) {
	options := azureblob.NewDefaultServiceURLOptions()
	if a := p.query.Get("account"); a != "" {
		options.AccountName = a
	}
	if options.AccountName == "" {
		return nil, "", fmt.Errorf("object store URI %s: the storage account is not known; add ?account=… or set AZURE_STORAGE_ACCOUNT", p.name)
	}
	client, err := azureClient(options, p.bucket)
	if err != nil {
		// The library's error may quote the connection string.
		return nil, "", storeError(p.name, azureLogin, fmt.Errorf("%w (%w)", ErrCredentials, err), reply{})
	}
	bucket, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, "", fmt.Errorf("bucket %s: %w", p.name, err)
	}
	return &cloud{bucket: p.prefixed(bucket), reply: azureReply, putLarge: azureParts{client, p.prefix}.put}, azureLogin, nil
}

// azureParts writes large objects part by part, for each of which the library would make one attempt. Parts that are never
// committed vanish by themselves.
type azureParts struct {
	client *container.Client
	prefix string
}

// put implements cloud.putLarge.
func (a azureParts) put(ctx context.Context, r *retrier, key string, data []byte) error {
	object := a.client.NewBlockBlobClient(a.prefix + key)
	ids := make([]string, (len(data)+partBytes-1)/partBytes)
	salt := uuid.New() // another attempt at this object may be under way
	g, partCtx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for i := range ids {
		ids[i] = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(salt[:len(salt):len(salt)], uint32(i)))
		body := data[i*partBytes : min((i+1)*partBytes, len(data))]
		g.Go(func() error {
			return r.do(partCtx, int64(len(body)), azureReply, func(ctx context.Context) error {
				_, err := object.StageBlock(ctx, ids[i], streaming.NopCloser(bytes.NewReader(body)), nil)
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("upload part: %w", err)
	}
	kind := contentType
	err := r.do(ctx, 0, azureReply, func(ctx context.Context) error {
		_, err := object.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{HTTPHeaders: &azblob.HTTPHeaders{BlobContentType: &kind}})
		return err
	})
	if err != nil {
		return fmt.Errorf("complete upload in parts: %w", err)
	}
	return nil
}

// azureClient makes a client of the credentials in the environment.
func azureClient(o *azureblob.ServiceURLOptions, name string) (*container.Client, error) {
	opts := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // see retrying
		Transport: azureTransport{&http.Client{Transport: remoteTransport()}},
	}}
	connection := os.Getenv("AZURE_STORAGE_CONNECTION_STRING")
	key := os.Getenv("AZURE_STORAGE_KEY")
	if key == "" && o.SASToken == "" && connection != "" {
		return container.NewClientFromConnectionString(connection, name, opts)
	}
	service, err := azureblob.NewServiceURL(o)
	if err != nil {
		return nil, err
	}
	at, err := url.JoinPath(string(service), name)
	if err != nil {
		return nil, err
	}
	switch {
	case key != "":
		shared, err := container.NewSharedKeyCredential(o.AccountName, key)
		if err != nil {
			return nil, err
		}
		return container.NewClientWithSharedKeyCredential(at, shared, opts)
	case o.SASToken != "":
		return container.NewClientWithNoCredential(at, opts)
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return container.NewClient(at, identity, opts)
}

// azureTransport keeps URLs out of errors: theirs may hold a shared access signature.
type azureTransport struct{ client *http.Client }

// Do implements policy.Transporter.
func (t azureTransport) Do(r *http.Request) (*http.Response, error) {
	res, err := t.client.Do(r)
	if shown, ok := errors.AsType[*url.Error](err); ok {
		err = shown.Err
	}
	return res, err
}

// azureReply implements cloud.reply.
func azureReply(err error) reply {
	if answered, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return reply{status: answered.StatusCode, code: answered.ErrorCode}
	}
	var login *azidentity.AuthenticationFailedError
	if errors.As(err, &login) || strings.HasPrefix(err.Error(), "DefaultAzureCredential:") {
		return reply{status: http.StatusUnauthorized}
	}
	return reply{}
}
