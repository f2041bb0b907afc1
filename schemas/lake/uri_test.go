package lake_test

import (
	"os"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/lake"
)

func TestRemoteURIs(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"STORAGE_EMULATOR_HOST": "127.0.0.1:1", "AZURE_STORAGE_ACCOUNT": "", "AZURE_STORAGE_KEY": "c2VjcmV0", "AZURE_STORAGE_CONNECTION_STRING": "",
		"AZURE_STORAGE_SAS_TOKEN": "",
	} {
		t.Setenv(name, value)
	}
	for _, good := range []string{
		"s3://bucket?region=eu-central-1", "s3://bucket/some/prefix?region=eu-central-1", "s3://bucket/prefix/?endpoint=http://127.0.0.1:9000",
		"s3://bucket?endpoint=https://store.example/&path_style=false&region=x", "gs://bucket", "gs://bucket/prefix",
		"azblob://container?account=a", "azblob://container/prefix?account=a",
	} {
		l, err := lake.Open(t.Context(), good, lake.Options{CacheDir: t.TempDir()})
		if err != nil {
			t.Errorf("Open(%s): %v", good, err)
			continue
		}
		if l.Root() != "" {
			t.Errorf("Root of %s = %q", good, l.Root())
		}
		closeLake(t, l)
	}
	for bad, want := range map[string]string{
		"s3://":                           "want s3://bucket",
		"s3://bucket":                     "the region is not known; add ?region=",
		"s3:bucket?region=r":              "want s3://bucket",
		"s3://key:secret@bucket?region=r": "credentials do not belong in it",
		"s3://bucket:80?region=r":         "want s3://bucket",
		"s3://bucket?region=r&secret_access_key=secret":              `parameter "secret_access_key" is not known; known are region, endpoint, path_style, and credentials come from the environment`,
		"s3://bucket?Region=r":                                       `parameter "Region" is not known`,
		"s3://bucket?region=r&region=q":                              "must have one value",
		"s3://bucket?region=":                                        "must have one value",
		"s3://bucket?region=r&path_style=perhaps":                    "path_style is true or false",
		"s3://bucket?region=r&endpoint=store.example":                "endpoint: want http://host:port",
		"s3://bucket?region=r&endpoint=http://key:secret@host":       "endpoint: want http://host:port",
		"s3://bucket?region=r&endpoint=http://host/?token=secret":    "endpoint: want http://host:port",
		"s3://bucket/../other?region=r":                              "prefix",
		"s3://bucket/a b?region=r":                                   "prefix",
		"s3://bucket?region=r;secret":                                "cannot be read",
		"s3://bucket?region=r#secret":                                "want s3://bucket",
		"gs://bucket?private_key_path=/secret":                       `parameter "private_key_path" is not known; there are none`,
		"azblob://container":                                         "the storage account is not known",
		"azblob://container?account=a&sig=secret":                    `parameter "sig" is not known`,
		"azblob://container?account=a&AccountKey=secret%2Fsecret%3D": `parameter "AccountKey" is not known`,
	} {
		l, err := lake.Open(t.Context(), bad, lake.Options{CacheDir: t.TempDir()})
		if err == nil {
			t.Errorf("Open(%s) succeeded", bad)
			closeLake(t, l)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(strings.ReplaceAll(err.Error(), `"secret_access_key"`, ""), "secret") {
			t.Errorf("Open(%s) = %v, want %q and no credential", bad, err, want)
		}
	}
}
