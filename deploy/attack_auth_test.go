package deploy_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

// Secrets that must show up nowhere: a right key, a wrong one, and what callers put into other places by mistake.
const (
	rightKey  = "canary-right-key-7d1e"
	wrongKey  = "canary-wrong-key-88fa"
	urlSecret = "canary-url-secret-3c90"
)

// rpcs are the methods of FlightService, and some that are not there.
var rpcs = []string{
	"ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoExchange", "DoAction", "ListActions",
}

// credentials are what is no right key, as values of the header.
var wrongCredentials = []string{
	"", "Bearer", "Bearer ", "Bearer " + wrongKey, "bearer " + wrongKey, "Basic " + base64.StdEncoding.EncodeToString([]byte("a:"+wrongKey)),
	rightKey, "Bearer " + rightKey + "x", "Bearer " + rightKey[:len(rightKey)-1], "Bearer x " + rightKey, "Token " + rightKey,
	"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "Bearer " + strings.ToUpper(rightKey), "Bearer anonymous", "Bearer null", "Bearer ci",
}

// call makes one call of a method that takes and gives anything, and returns its code.
func (p *process) call(ctx context.Context, conn *grpc.ClientConn, method, authorization string) codes.Code {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return status.Code(err)
	}
	if err := s.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return status.Code(err)
	}
	if err := s.CloseSend(); err != nil {
		return status.Code(err)
	}
	return status.Code(s.RecvMsg(&emptypb.Empty{}))
}

// get fetches a path with or without credentials and returns the status.
func (p *process) get(method, path, authorization string) int {
	p.T.Helper()
	req, err := http.NewRequestWithContext(p.T.Context(), method, p.HTTP+path, strings.NewReader("x"))
	if err != nil {
		p.T.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.T.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestWithoutAKeyNothingIsAnswered tries every route and every call without credentials and with wrong ones, and looks
// for the secrets in all that the server wrote.
func TestWithoutAKeyNothingIsAnswered(t *testing.T) {
	dir := deploytest.NewDataDir(t)
	cmd := exec.Command(deploytest.Binary(t), deploytest.ServeArgs(dir, "--log-level", "debug")...)
	cmd.Env = append(os.Environ(), `MICROMEGAS_API_KEYS=[{"name":"ci","key":"`+rightKey+`"}]`)
	p := startCommand(t, dir, cmd)
	conn, err := grpc.NewClient(p.Flight, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	for _, authorization := range wrongCredentials {
		for _, path := range []string{"/ingestion/insert_process", "/ingestion/insert_stream", "/ingestion/insert_block", "/ingestion/insert_block?key=" + urlSecret} {
			if code := p.get("POST", path, authorization); code != http.StatusUnauthorized {
				t.Errorf("POST %s with %q: %d", path, authorization, code)
			}
		}
		if code := p.get("GET", "/status", authorization); code != http.StatusUnauthorized {
			t.Errorf("GET /status with %q: %d", authorization, code)
		}
		for _, rpc := range rpcs {
			if code := p.call(t.Context(), conn, "/arrow.flight.protocol.FlightService/"+rpc, authorization); code != codes.Unauthenticated {
				t.Errorf("%s with %q: %v", rpc, authorization, code)
			}
		}
	}
	for _, path := range []string{"/", "/admin", "/debug/pprof/", "/debug/vars", "/metrics", "/ingestion/", "/ingestion/../status", "/status/", "/../../etc/passwd", "//status"} {
		if code := p.get("GET", path, ""); code == http.StatusOK {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	for _, method := range []string{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.channelz.v1.Channelz/GetServers", "/arrow.flight.protocol.FlightService/Nothing"} {
		if code := p.call(t.Context(), conn, method, "Bearer "+rightKey); code != codes.Unimplemented {
			t.Errorf("%s: %v", method, code)
		}
	}
	if code := p.get("GET", "/health", ""); code != http.StatusOK {
		t.Errorf("/health without a key: %d", code)
	}
	if code := p.get("GET", "/ready", ""); code != http.StatusOK {
		t.Errorf("/ready without a key: %d", code)
	}
	if code := p.get("GET", "/status", "Bearer "+rightKey); code != http.StatusOK {
		t.Errorf("/status with the key: %d", code)
	}
	if code := p.get("POST", "/ingestion/insert_block", "Bearer "+rightKey); code != http.StatusBadRequest {
		t.Errorf("ingestion with the key: %d", code)
	}
	if code := p.call(t.Context(), conn, "/arrow.flight.protocol.FlightService/ListActions", "Bearer "+rightKey); code != codes.OK && code != codes.Unimplemented {
		t.Errorf("ListActions with the key: %v", code)
	}
	p.get("GET", "/status?authorization="+urlSecret, "Bearer "+wrongKey)
	p.Stop()
	refuseSecrets(t, p.Log)
	refuseSecrets(t, dir)
}

// refuseSecrets fails if a secret stands in any file below path.
func refuseSecrets(t *testing.T, path string) {
	t.Helper()
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		for _, secret := range []string{rightKey, wrongKey, urlSecret} {
			if strings.Contains(string(content), secret) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMistakesDoNotTellSecrets starts a server with settings that are wrong and hold secrets.
func TestMistakesDoNotTellSecrets(t *testing.T) {
	for name, env := range map[string]string{
		"keys that are no JSON":     "MICROMEGAS_API_KEYS=" + rightKey,
		"keys of another form":      `MICROMEGAS_API_KEYS={"name":"a","key":"` + rightKey + `"}`,
		"a key without a name":      `MICROMEGAS_API_KEYS=[{"key":"` + rightKey + `"}]`,
		"a field too many":          `MICROMEGAS_API_KEYS=[{"name":"a","key":"x","` + rightKey + `":1}]`,
		"a bus that is not there":   "MICROMEGAS_NATS_URL=nats://user:" + rightKey + "@127.0.0.1:1",
		"a bus that is no URL":      "MICROMEGAS_NATS_URL=nats://user:" + rightKey + "@:::1",
		"a catalog with a password": "MICROMEGAS_SQL_CONNECTION_STRING=postgres://user:" + rightKey + "@host/db",
		"a bucket with a key":       "MICROMEGAS_OBJECT_STORE_URI=s3://bucket?secret=" + rightKey,
		"a bucket that is no URI":   "MICROMEGAS_OBJECT_STORE_URI=s3://user:" + rightKey + "@%zz",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, deploytest.Binary(t), deploytest.ServeArgs(t.TempDir(), "--start-timeout", "1s")...)
			cmd.Env = append(os.Environ(), env)
			out, err := cmd.CombinedOutput()
			if err == nil || ctx.Err() != nil {
				t.Fatalf("serve started: %v\n%s", err, out)
			}
			for _, secret := range []string{rightKey, wrongKey} {
				if strings.Contains(string(out), secret) {
					t.Errorf("the message tells the secret: %s", out)
				}
			}
		})
	}
}
