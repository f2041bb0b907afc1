package deploy_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy"
	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

// TestProcessesMustBeAbleToMeet refuses settings under which the processes of a lake would not find one another.
func TestProcessesMustBeAbleToMeet(t *testing.T) {
	f := func(name string, change func(*deploy.Config), want ...string) {
		t.Helper()
		c := deploy.DefaultConfig()
		change(&c)
		err := c.Validate()
		if len(want) == 0 && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, text := range want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v does not say %q", name, err, text)
			}
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the message holds a password: %v", name, err)
		}
	}
	workers := []deploy.Role{deploy.RoleWorkers}
	apart := func(c *deploy.Config) {
		c.Roles, c.CatalogURI, c.NATSURLs, c.ObjectStoreURI = workers, "postgres://me:canary@db/lake", "nats://me:canary@bus", "s3://lake"
	}
	f("default", func(*deploy.Config) {})
	f("apart", apart)
	f("on a shared disk, with the bus inside", func(c *deploy.Config) {
		apart(c)
		c.NATSURLs, c.NATSListen, c.ObjectStoreURI = "", "127.0.0.1:0", "file:///srv/lake"
	})
	f("split over SQLite", func(c *deploy.Config) { c.Roles = workers }, "belongs to one process", "nobody can reach its bus", "a lake of its own")
	f("a bus that nobody reaches", func(c *deploy.Config) { apart(c); c.NATSURLs = "" }, "let others join with --nats-listen")
	f("a lake in memory", func(c *deploy.Config) { apart(c); c.ObjectStoreURI = "mem://" }, "is lost with this process")
	f("two buses", func(c *deploy.Config) { apart(c); c.NATSListen = "127.0.0.1:0" }, "use one of the two")
	f("an open bus", func(c *deploy.Config) { c.NATSListen = "0.0.0.0:4222" }, "MICROMEGAS_NATS_TOKEN")
	f("a bus with a token", func(c *deploy.Config) { c.NATSListen, c.NATSToken = "0.0.0.0:4222", "canary" })
	f("another database", func(c *deploy.Config) { c.CatalogURI = "mysql://me:canary@db/lake" }, "no URI of a known kind")
	f("another file", func(c *deploy.Config) { c.CatalogURI = "sqlite:/tmp/x" }, "set --data")
	f("another store", func(c *deploy.Config) { c.ObjectStoreURI = "ftp://me:canary@host" }, `scheme "ftp"`)
	f("credentials for nobody", func(c *deploy.Config) { c.NATSCreds = "/no/such" }, "--nats-creds is for a server that --nats names")
	f("credentials that are not there", func(c *deploy.Config) { apart(c); c.NATSCreds, c.NATSCert = "/no/such", "/no/such" },
		"no such file", "--nats-cert and --nats-key belong together")
	f("replicas of one server", func(c *deploy.Config) { c.BusReplicas = 3 }, "the one inside this process is alone")
	f("no flight without queries", func(c *deploy.Config) { apart(c); c.FlightAddr = "nonsense" })
	f("telemetry to nowhere", func(c *deploy.Config) { c.Telemetry = "canary" }, "--telemetry")
	f("telemetry to no gateway", func(c *deploy.Config) { apart(c); c.Telemetry = "self" }, "name the URL of one")
	f("telemetry to another", func(c *deploy.Config) { apart(c); c.Telemetry = "http://gateway:9000" })
	f("a query for days", func(c *deploy.Config) { c.QueryTimeout = 48 * 3600e9 }, "--query-timeout")
}

// TestNumberOfShardsIsFixed refuses a lake to a process that counts its shards otherwise.
func TestNumberOfShardsIsFixed(t *testing.T) {
	dir := deploytest.NewDataDir(t)
	startServe(t, dir, "--bus-shards", "2").Stop()
	p := startServe(t, dir) // the catalog remembers
	if n := len(p.Status()["shards"].([]any)); n != 4 {
		t.Errorf("%d shards, want two of each class", n)
	}
	p.Stop()
	out, err := exec.Command(deploytest.Binary(t), deploytest.ServeArgs(dir, "--bus-shards", "3")...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "serve: start bus: --bus-shards is 3, and this lake was made with 2: leave it out") {
		t.Errorf("another number of shards: %v\n%s", err, out)
	}
}
