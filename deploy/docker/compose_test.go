// Package docker_test holds the image and the compose file to what they promise, also where no container engine is: the file
// is read by docker compose's own library, the image's build commands run here and their result in a root folder that
// holds what the image would hold, and the services' commands and environment run as processes of this machine.
package docker_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/micromegas-go/micromegas/deploy"
	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
)

// project is what the tests look at in a compose file.
type project struct {
	Services map[string]service
	Networks map[string]struct{ Internal bool }
	Configs  map[string]struct{ File string }
}

type service struct {
	Image       string
	Build       *struct{ Context, Dockerfile string }
	User        string
	Entrypoint  []string
	Command     []string
	Environment map[string]string
	Restart     string
	ReadOnly    bool     `json:"read_only"`
	CapDrop     []string `json:"cap_drop"`
	CapAdd      []string `json:"cap_add"`
	SecurityOpt []string `json:"security_opt"`
	NetworkMode string   `json:"network_mode"`
	Networks    map[string]any
	Healthcheck *struct{ Test []string }
	StopGrace   string                                `json:"stop_grace_period"`
	DependsOn   map[string]struct{ Condition string } `json:"depends_on"`
	Configs     []struct{ Source, Target string }
	Volumes     []struct{ Type, Source, Target string }
	Ports       []struct {
		HostIP    string `json:"host_ip"`
		Target    int
		Published string
	}
	Deploy struct {
		Replicas  int
		Resources struct {
			Limits struct {
				CPUs   float64
				Memory string
			}
		}
	}
}

// secrets returns a value for each name of .env.example, the numbers among them such as a careless parser would take for one.
func secrets(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(".env.example")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if value != "" {
			t.Errorf(".env.example gives %s a value: everybody would keep it", name)
		}
		values[name] = "7" + strconv.Itoa(len(values)) + "e10"
	}
	return values
}

// compose reads a compose file as `docker compose config` does, with values for its variables.
func compose(t *testing.T, file string, values map[string]string) ([]byte, error) {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "./compose", path)
	cmd.Dir = "../tools"
	cmd.Env = environ(values)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return problem.Bytes(), err
	}
	return out, nil
}

// environ is this process's environment with values added.
func environ(values map[string]string) []string {
	env := os.Environ()
	for name, value := range values {
		env = append(env, name+"="+value)
	}
	return env
}

// load returns the compose file as a project.
func load(t *testing.T, values map[string]string) project {
	t.Helper()
	out, err := compose(t, "compose.yaml", values)
	if err != nil {
		t.Fatalf("compose.yaml: %v\n%s", err, out)
	}
	var p project
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestComposeFileIsValid asks docker compose itself where it is, and its library everywhere; mistakes must be found.
func TestComposeFileIsValid(t *testing.T) {
	values := secrets(t)
	load(t, values)
	if exec.CommandContext(t.Context(), "docker", "compose", "version").Run() == nil {
		cmd := exec.CommandContext(t.Context(), "docker", "compose", "--file", "compose.yaml", "config", "--quiet")
		cmd.Env = environ(values)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("docker compose config: %v\n%s", err, out)
		}
	} else {
		t.Log("docker compose is not installed: its library alone has read the file")
	}

	for name := range values {
		without := maps.Clone(values)
		delete(without, name)
		if out, err := compose(t, "compose.yaml", without); err == nil || !strings.Contains(string(out), name) {
			t.Errorf("without %s: %v, %s; want a refusal that names it", name, err, out)
		}
	}
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"unknown key":        {"healthcheck:", "healthchek:"},
		"unknown dependency": {"postgres: {condition", "postgers: {condition"},
		"unknown condition":  {"condition: service_healthy", "condition: service_well"},
		"unknown network":    {"networks: [inner, outer]", "networks: [inner, uoter]"},
		"unknown volume":     {`"s3:/data"`, `"s4:/data"`},
		"unknown config":     {"source: nats,", "source: gnats,"},
		"bad size":           {"memory: 1G", "memory: much"},
	} {
		bad := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(bad, bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := compose(t, bad, values); err == nil {
			t.Errorf("%s is not found:\n%s", name, out)
		}
	}
}

// foreignVariables are read by what serve is made of: the AWS client and the Go runtime.
var foreignVariables = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOMEMLIMIT"}

// once says whether the service does its work and ends.
func (s service) once() bool { return s.Restart == "no" }

// TestServicesAreBoundedAndUnprivileged holds every service to the rules of the house.
func TestServicesAreBoundedAndUnprivileged(t *testing.T) {
	image := dockerfile(t)
	p := load(t, secrets(t))
	roles := map[string]int{}
	for name, s := range p.Services {
		user, health := s.User, s.Healthcheck != nil
		if s.Build != nil {
			user, health = image.user, health || len(image.health) > 0
			roles[s.flag("--roles")] += s.Deploy.Replicas
			for variable := range s.Environment {
				if !slices.Contains(deploy.Environment(), variable) && !slices.Contains(foreignVariables, variable) {
					t.Errorf("%s: serve does not read %s", name, variable)
				}
			}
		} else if !pinned(s.Image) {
			t.Errorf("%s: %q is not pinned to a version", name, s.Image)
		}
		memory, err := strconv.ParseInt(s.Deploy.Resources.Limits.Memory, 10, 64)
		if err != nil || memory <= 0 || s.Deploy.Resources.Limits.CPUs <= 0 {
			t.Errorf("%s has no limits of memory and CPU", name)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may change its image or gain privileges", name)
		}
		if s.once() {
			if s.NetworkMode != "none" || !slices.Equal(s.CapAdd, []string{"CHOWN"}) {
				t.Errorf("%s runs as root with more than it needs", name)
			}
			continue
		}
		if s.Restart != "unless-stopped" {
			t.Errorf("%s is not started again: restart %q", name, s.Restart)
		}
		if !health {
			t.Errorf("%s has no health check", name)
		}
		if user == "" || strings.HasPrefix(user, "0") || strings.HasPrefix(user, "root") {
			t.Errorf("%s runs as %q", name, user)
		}
		if len(s.CapAdd) > 0 {
			t.Errorf("%s adds capabilities", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s opens port %d to the network", name, port.Target)
			}
		}
		if _, out := s.Networks["outer"]; out != (len(s.Ports) > 0) {
			t.Errorf("%s: on the outer network is who publishes a port, and nobody else", name)
		}
	}
	if !p.Networks["inner"].Internal {
		t.Error("the inner network leads outside")
	}
	want := map[string]int{"gateway": 2, "workers": 2, "materializers": 2, "query": 2}
	if !maps.Equal(roles, want) {
		t.Errorf("roles %v, want %v", roles, want)
	}
}

// TestServicesWaitForWhatTheyNeed finds the services that a server's environment names among those it waits for.
func TestServicesWaitForWhatTheyNeed(t *testing.T) {
	p := load(t, secrets(t))
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		for other, o := range p.Services {
			if o.Build != nil || o.once() {
				continue
			}
			if !slices.ContainsFunc(slices.Collect(maps.Values(s.Environment)), regexp.MustCompile(`[/@]`+other+`:\d`).MatchString) {
				t.Errorf("%s does not know %s", name, other)
			}
			if s.DependsOn[other].Condition != "service_healthy" {
				t.Errorf("%s does not wait for %s to be healthy", name, other)
			}
		}
	}
}

// flag returns the value behind a flag of the service's command.
func (s service) flag(name string) string {
	if i := slices.Index(s.Command, name); i >= 0 && i+1 < len(s.Command) {
		return s.Command[i+1]
	}
	return ""
}

// pinned says whether an image's tag begins with a number.
func pinned(image string) bool {
	return regexp.MustCompile(`:v?\d+(\.\d+)*(-[a-z0-9.]+)?$`).MatchString(image)
}

// TestServersAreTheTestedOnes compares the versions of the images with those that every test of the house runs against.
func TestServersAreTheTestedOnes(t *testing.T) {
	p := load(t, secrets(t))
	for _, c := range []struct{ service, module, path, form string }{
		{"nats-1", "../../go.mod", "github.com/nats-io/nats-server/v2", "nats:%-alpine"},
		{"s3", "../tools/go.mod", "github.com/versity/versitygw", "versity/versitygw:v%"},
	} {
		want := strings.ReplaceAll(c.form, "%", strings.TrimPrefix(required(t, c.module, c.path), "v"))
		if got := p.Services[c.service].Image; got != want {
			t.Errorf("%s is %s, the tests run against %s", c.service, got, want)
		}
	}
}

// required returns the version of a module that a go.mod requires.
func required(t *testing.T, file, path string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == path {
			return words[1]
		}
	}
	t.Fatalf("%s does not require %s", file, path)
	return ""
}

// TestNATSConfiguration reads nats.conf as the server does: syncing before each acknowledgement, large enough for the bus,
// closed to whoever has no password.
func TestNATSConfiguration(t *testing.T) {
	p := load(t, secrets(t))
	env := p.Services["nats-1"].Environment
	for name, value := range env {
		t.Setenv(name, value)
	}
	program, err := parts.Binary(t.Context(), parts.NATSServer)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), program, "-t", "-c", "nats.conf").CombinedOutput(); err != nil {
		t.Fatalf("nats-server -t: %v\n%s", err, out)
	}
	o, err := natsserver.ProcessConfigFile("nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !o.SyncAlways {
		t.Error("sync_interval is not always: what was acknowledged is lost with the power")
	}
	if o.MaxPayload != embedded.MaxPayload {
		t.Errorf("max_payload %d, the embedded server has %d", o.MaxPayload, embedded.MaxPayload)
	}
	if bound := bus.DefaultConfig(); o.JetStreamMaxStore < bound.MaxBytes+bound.DeadLetterBytes {
		t.Errorf("max_file_store %d is below the bound of the streams", o.JetStreamMaxStore)
	}
	password := secrets(t)["NATS_PASSWORD"]
	if o.ServerName != "nats-1" || o.Password != password || o.Cluster.Password != password || o.Username == "" || o.Cluster.Username == "" {
		t.Errorf("server %q, user %q, cluster's user %q: a name or a password of the environment is not taken", o.ServerName, o.Username, o.Cluster.Username)
	}
	if !strings.HasPrefix(o.HTTPHost, "127.") {
		t.Errorf("monitoring listens on %s without a password", o.HTTPHost)
	}
	for _, route := range o.Routes {
		if _, ok := p.Services[route.Hostname()]; !ok {
			t.Errorf("route to %s: no such service", route.Host)
		}
		if secret, _ := route.User.Password(); route.User.Username() != o.Cluster.Username || secret != password {
			t.Errorf("route to %s would be refused", route.Host)
		}
	}
	if len(o.Routes) != 3 {
		t.Errorf("%d routes, want 3", len(o.Routes))
	}
}
