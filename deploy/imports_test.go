package deploy_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/micromegas-go/micromegas"

// mayImport is the architecture: a folder of the house and the folders of the house that its files may import.
// A name covers everything below it; the longest matching name counts. A package may always import its own folder's
// packages. Tests may import more (testMayImport).
var mayImport = map[string][]string{
	".":                   {"deploy"},
	"schemas/telemetry":   {},
	"schemas/wire":        {"schemas/telemetry"},
	"schemas/bus":         {"schemas/telemetry"},
	"schemas/catalog":     {"schemas/telemetry"},
	"schemas/lake":        {"schemas/telemetry", "schemas/catalog", "schemas/bus"},
	"schemas/lake/frozen": {"schemas/telemetry", "schemas/catalog"},
	"schemas/lake/locate": {"schemas/telemetry", "schemas/catalog", "schemas/lake/frozen"},
	"schemas/tables":      {"schemas/telemetry"},
	"schemas/identity":    {},
	"schemas":             {},
	"sdk":                 {"schemas/telemetry", "schemas/wire"},
	"producers":           {"sdk", "schemas/telemetry", "schemas/wire"},
	"gateway":             {"sdk", "schemas"},
	"workers":             {"sdk", "schemas"},
	"materializers":       {"sdk", "schemas"},
	"query":               {"sdk", "schemas"},
	"query/dialect":       {"schemas/tables", "schemas/telemetry", "query/functions"},
	"query/functions":     {},
	"query/engine":        {"schemas/tables", "query/functions"},
	"deploy":              {"sdk", "schemas", "producers", "gateway", "workers", "materializers", "query"},
	"deploy/parts":        {"schemas/bus/embedded"}, // its servers take what the embedded one takes
}

// mayNotImport are exceptions from mayImport. Package frozen drags the Parquet library in, which the gateway and what it stands on have no use for.
var mayNotImport = map[string][]string{
	"gateway":      {"schemas/lake/frozen", "schemas/lake/locate"},
	"schemas/lake": {"schemas/lake/frozen", "schemas/lake/locate"},
}

// testMayImport widens the rule for _test.go files and for the packages that only tests import: they may bring the real
// parts of the schemas with them, and deploy's support for real servers and outside clients.
var testMayImport = []string{"schemas", "deploy/parts", "deploy/pyclient", "query/sqltest"}

// testStages lists the stages whose tests need another stage to run against: the writer before them in the data path.
var testStages = map[string][]string{
	"materializers": {"workers/archive"},
	"query":         {"workers/archive", "workers/freezer", "materializers", "query/engine"},
}

// onlyIn names foreign modules that one folder alone may import, the reason being isolation of what they drag in.
var onlyIn = map[string][]string{
	"github.com/duckdb":              {"query/engine"},
	"github.com/nats-io/nats-server": {"schemas/bus/embedded"},
	"modernc.org/sqlite":             {"schemas/catalog/sqlite"},
	"github.com/jackc/pgx":           {"schemas/catalog/postgres", "sdk/pgxtrace", "deploy/parts"},
	"gocloud.dev":                    {"schemas/lake"},
	"github.com/aws":                 {"schemas/lake"},
	"github.com/Azure":               {"schemas/lake"},
	"cloud.google.com/go":            {"schemas/lake"},
	"google.golang.org/api":          {"schemas/lake"},
	"github.com/ThreeDotsLabs":       {"workers"},
	"github.com/anishathalye":        {"schemas/catalog/catalogtest"},
	"github.com/nats-io/nats.go":     {"schemas/bus", "deploy"},
	"github.com/pierrec/lz4":         {"schemas/wire", "query"},
	"github.com/apache/arrow-go":     {"schemas/tables", "schemas/lake/frozen", "materializers", "query", "deploy"},
	"google.golang.org/grpc":         {"query", "deploy"},
	"go.opentelemetry.io/otel":       {"sdk/otelbridge"},
	"github.com/planetscale":         {"query/perfetto/tracepb"},
}

// topLevel is the whole house.
var topLevel = []string{"producers", "gateway", "workers", "materializers", "query", "schemas", "sdk", "deploy"}

// TestImportsFollowTheArchitecture parses every file itself: a test that asked `go list` would be served from the test
// cache and miss a change.
func TestImportsFollowTheArchitecture(t *testing.T) {
	root := ".."
	files := 0
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != root && (name == "testdata" || name == "tools" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		checkFile(t, p, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("parsed %d files only: the walk does not see the house", files)
	}
}

func checkFile(t *testing.T, file, rel string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Errorf("parse %s: %v", rel, err)
		return
	}
	dir := path.Dir(rel)
	isTest := strings.HasSuffix(rel, "_test.go") || strings.HasSuffix(dir, "test")
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: import %s: %v", rel, spec.Path.Value, err)
			continue
		}
		if inner, ok := strings.CutPrefix(name, module+"/"); ok {
			if !mayImportInner(dir, inner, isTest) {
				t.Errorf("%s imports %s: not allowed by the import rule", rel, inner)
			}
			continue
		}
		for foreign, folders := range onlyIn {
			if under(name, foreign) && !isTest && !slices.ContainsFunc(folders, func(f string) bool { return under(dir, f) }) {
				t.Errorf("%s imports %s: only %s may", rel, name, strings.Join(folders, ", "))
			}
		}
	}
}

func mayImportInner(dir, inner string, isTest bool) bool {
	rule := ruleOf(dir)
	if !isTest && slices.ContainsFunc(mayNotImport[rule], func(n string) bool { return under(inner, n) }) {
		return false
	}
	if under(inner, rule) && rule != "." {
		return true
	}
	allowed := slices.Clone(mayImport[rule])
	if isTest {
		allowed = append(allowed, testMayImport...)
		allowed = append(allowed, testStages[strings.SplitN(dir, "/", 2)[0]]...)
	}
	return slices.ContainsFunc(allowed, func(a string) bool { return under(inner, a) })
}

// ruleOf returns the longest key of mayImport that covers dir.
func ruleOf(dir string) string {
	best := "."
	for name := range mayImport {
		if name != "." && under(dir, name) && (best == "." || len(name) > len(best)) {
			best = name
		}
	}
	return best
}

// under says whether name is folder or lies below it.
func under(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

// TestHouseHasEightFolders keeps helpers and other by-ways out of the top level.
func TestHouseHasEightFolders(t *testing.T) {
	entries, err := filepath.Glob("../*")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := filepath.Base(e)
		if matches, _ := filepath.Glob("../" + name + "/*.go"); len(matches) == 0 {
			if sub, _ := filepath.Glob("../" + name + "/*/*.go"); len(sub) == 0 {
				continue
			}
		}
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s holds Go files beside the eight folders of the house", name)
		}
	}
}
