package apart_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// refusal is how long a process may take to say that it will not start.
const refusal = 20 * time.Second

// mustRefuse starts a process that must end by itself with a message that holds every one of texts, and none of secrets.
func mustRefuse(t *testing.T, m *member, secrets []string, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), refusal)
	defer cancel()
	cmd := m.command()
	running := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	running.Env = cmd.Env
	out, err := running.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s did not refuse to start within %v: %v\n%s", m.name, refusal, err, out)
	}
	for _, text := range texts {
		if !strings.Contains(string(out), text) {
			t.Errorf("%s: the message does not say %q:\n%s", m.name, text, out)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(string(out), secret) {
			t.Errorf("%s: the message tells the secret %q", m.name, secret)
		}
	}
	t.Logf("%s: %s", m.name, out)
}

// TestWrongDeploymentsAreRefused starts processes that are told something wrong beside a deployment that works: each must
// refuse at once, in a sentence that says which part and what to do, and the deployment must not notice.
func TestWrongDeploymentsAreRefused(t *testing.T) {
	c := newCluster(t, clusterOptions{natsServers: 1, nats: parts.NATSOptions{User: "micromegas", Password: "right"}})
	c.start("first", "gateway,workers,materializers,query", "--bus-shards", "2")
	place := func(name string, env map[string]string, args ...string) *member {
		return &member{cluster: c, name: name, roles: "gateway,workers", env: env, args: args, http: "127.0.0.1:0", flight: "127.0.0.1:0"}
	}
	t.Run("password of PostgreSQL", func(t *testing.T) {
		wrong := strings.Replace(c.env["MICROMEGAS_SQL_CONNECTION_STRING"], "@", "canary@", 1)
		mustRefuse(t, place("pg", map[string]string{"MICROMEGAS_SQL_CONNECTION_STRING": wrong}), []string{"canary"}, "catalog", "password")
	})
	t.Run("database of PostgreSQL", func(t *testing.T) {
		wrong := strings.Replace(c.env["MICROMEGAS_SQL_CONNECTION_STRING"], "/micromegas?", "/nowhere?", 1)
		mustRefuse(t, place("db", map[string]string{"MICROMEGAS_SQL_CONNECTION_STRING": wrong}), nil, "catalog", "nowhere", "does not exist")
	})
	t.Run("secret of S3", func(t *testing.T) {
		mustRefuse(t, place("s3", map[string]string{"AWS_SECRET_ACCESS_KEY": "canary"}), []string{"canary"}, "object store", "credentials")
	})
	t.Run("bucket of S3", func(t *testing.T) {
		wrong := strings.Replace(c.env["MICROMEGAS_OBJECT_STORE_URI"], "lake", "nowhere", 1)
		mustRefuse(t, place("bucket", map[string]string{"MICROMEGAS_OBJECT_STORE_URI": wrong}), nil, "object store", "nowhere", "no such bucket")
	})
	t.Run("password of NATS", func(t *testing.T) {
		wrong := strings.Replace(c.env["MICROMEGAS_NATS_URL"], "right@", "canary@", 1)
		mustRefuse(t, place("nats", map[string]string{"MICROMEGAS_NATS_URL": wrong}), []string{"canary"}, "bus", "credentials")
	})
	t.Run("another lake", func(t *testing.T) {
		mustRefuse(t, place("lake", map[string]string{"MICROMEGAS_OBJECT_STORE_URI": c.s3.URI("other")}), nil, "bucket", "does not belong")
	})
	t.Run("another number of shards", func(t *testing.T) {
		mustRefuse(t, place("shards", nil, "--bus-shards", "3"), nil, "shards", "2", "3")
	})
	t.Run("another catalog on the same bus", func(t *testing.T) {
		mustRefuse(t, place("catalog", map[string]string{"MICROMEGAS_SQL_CONNECTION_STRING": c.postgres.URL("other"), "MICROMEGAS_OBJECT_STORE_URI": c.s3.URI("other2")}), nil, "bus")
	})
	t.Run("a newer lake", func(t *testing.T) {
		newer := c.env["MICROMEGAS_SQL_CONNECTION_STRING"]
		if err := c.postgres.ExecIn(t.Context(), "micromegas", "UPDATE lake SET v = '1000' WHERE k = '"+lake.SettingLayout+"'"); err != nil {
			t.Fatal(err)
		}
		mustRefuse(t, place("newer", map[string]string{"MICROMEGAS_SQL_CONNECTION_STRING": newer}), nil, "1000", "newer")
	})
}
