package docker_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// image is what the Dockerfile says of its build stage and of its final one.
type image struct {
	golang     string   // tag of the build stage's base
	runs       []string // commands of the build stage
	base       string
	copies     []copied
	user       string
	env        []string
	health     []string
	entrypoint []string
	cmd        []string
}

type copied struct{ owner, source, target string }

// dockerfile reads the instructions that the Dockerfile uses and refuses others, so that none is overlooked.
func dockerfile(t *testing.T) image {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var im image
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		instruction, rest, _ := strings.Cut(line, " ")
		building := im.base == ""
		switch {
		case instruction == "FROM" && im.golang == "":
			im.golang = strings.TrimSuffix(strings.TrimPrefix(rest, "golang:"), " AS build")
		case instruction == "FROM":
			im.base = rest
		case instruction == "WORKDIR" && building, instruction == "COPY" && building: // the source
		case instruction == "RUN" && building:
			im.runs = append(im.runs, rest)
		case instruction == "COPY":
			im.copies = append(im.copies, copyOf(t, rest))
		case instruction == "USER":
			im.user = rest
		case instruction == "ENV":
			im.env = append(im.env, rest)
		case instruction == "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, " CMD ")
			im.health = words(t, command)
		case instruction == "ENTRYPOINT":
			im.entrypoint = words(t, rest)
		case instruction == "CMD":
			im.cmd = words(t, rest)
		case instruction == "VOLUME", instruction == "EXPOSE":
		default:
			t.Fatalf("Dockerfile: %s is not understood by its test", line)
		}
	}
	return im
}

var copyForm = regexp.MustCompile(`^--from=build (?:--chown=(\S+) )?(\S+) (\S+)$`)

func copyOf(t *testing.T, text string) copied {
	t.Helper()
	m := copyForm.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("Dockerfile: COPY %s is not understood by its test", text)
	}
	return copied{owner: m[1], source: m[2], target: m[3]}
}

func words(t *testing.T, text string) []string {
	t.Helper()
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("Dockerfile: %s: %v", text, err)
	}
	return list
}

// TestDockerfileMakesALeanImage compares the Dockerfile with go.mod and with what the image is meant to be.
func TestDockerfileMakesALeanImage(t *testing.T) {
	im := dockerfile(t)
	if im.base != "scratch" {
		t.Errorf("the image begins with %s, want scratch", im.base)
	}
	if !regexp.MustCompile(`^\d+\.\d+\.\d+-bookworm$`).MatchString(im.golang) {
		t.Errorf("the build stage's image golang:%s is not pinned", im.golang)
	}
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	language := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(text)
	if language == nil || !strings.HasPrefix(im.golang, string(language[1])+".") {
		t.Errorf("the build stage has Go %s, go.mod says %s", im.golang, language)
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(im.user) {
		t.Errorf("USER %q is not a number that a host can check", im.user)
	}
	if !slices.Equal(im.health, []string{"/micromegas", "health"}) || !slices.Equal(im.entrypoint, []string{"/micromegas"}) || !slices.Equal(im.cmd, []string{"serve"}) {
		t.Errorf("HEALTHCHECK %q, ENTRYPOINT %q, CMD %q", im.health, im.entrypoint, im.cmd)
	}
}
