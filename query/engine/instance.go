package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/micromegas-go/micromegas/query/functions"
)

// instance is one in-memory database with its macros, functions and locked settings. A fatal
// error makes DuckDB refuse every further statement on it; the engine then opens another.
type instance struct {
	db        duckdb.Database
	functions []registration

	mu   sync.Mutex
	refs int  // connections, and one of the engine
	dead bool // after a fatal error
}

func openInstance(cfg Config) (*instance, error) {
	var config duckdb.Config
	if duckdb.CreateConfig(&config) != duckdb.StateSuccess {
		return nil, fmt.Errorf("create configuration: DuckDB refuses it")
	}
	defer duckdb.DestroyConfig(&config)
	// Errors with their position and candidates apart. A local setting must be given here to
	// reach every connection.
	if duckdb.SetConfig(config, "errors_as_json", "true") != duckdb.StateSuccess {
		return nil, fmt.Errorf("set errors_as_json: DuckDB refuses it")
	}
	inst := &instance{refs: 1}
	var message string
	if duckdb.OpenExt("", &inst.db, config, &message) != duckdb.StateSuccess {
		return nil, fmt.Errorf("open database: %s", message)
	}
	if err := inst.prepare(cfg); err != nil {
		inst.release()
		return nil, err
	}
	return inst, nil
}

// prepare registers functions, defines macros and locks the settings, in the order that they
// need: macros before integer_division, which would change their bodies; directories before the
// door is closed; the lock last.
func (inst *instance) prepare(cfg Config) error {
	var raw duckdb.Connection
	if duckdb.Connect(inst.db, &raw) != duckdb.StateSuccess {
		return fmt.Errorf("connect: DuckDB refuses it")
	}
	defer duckdb.Disconnect(&raw)
	all := slices.Clone(cfg.Waiting)
	for _, s := range functions.Scalars() {
		all = append(all, functions.Waiting{Scalar: s})
	}
	for i := range all {
		r, err := register(raw, &all[i])
		if err != nil {
			return err
		}
		inst.functions = append(inst.functions, r)
	}
	if err := execute(raw, functions.Macros); err != nil {
		return fmt.Errorf("define macros: %w", err)
	}
	for _, sql := range settings(cfg) {
		if err := execute(raw, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func settings(cfg Config) []string {
	dirs := make([]string, len(cfg.AllowedDirs))
	for i, d := range cfg.AllowedDirs {
		dirs[i] = quote(strings.TrimRight(d, "/") + "/")
	}
	out := []string{
		"SET GLOBAL TimeZone = 'UTC'",
		"SET GLOBAL integer_division = true",
		"SET GLOBAL default_null_order = 'nulls_last_on_asc_first_on_desc'",
		fmt.Sprintf("SET GLOBAL memory_limit = '%d B'", cfg.MemoryLimit),
		"SET GLOBAL temp_directory = " + quote(cfg.TempDir), // empty: no spilling
		fmt.Sprintf("SET GLOBAL max_temp_directory_size = '%d B'", cfg.TempLimit),
		"SET GLOBAL enable_external_file_cache = false", // the kernel caches files already
		"SET GLOBAL allocator_background_threads = false",
	}
	if cfg.Threads > 0 {
		out = append(out, fmt.Sprintf("SET GLOBAL threads = %d", cfg.Threads))
	}
	return append(out,
		"SET GLOBAL allowed_directories = ["+strings.Join(dirs, ", ")+"]",
		"SET GLOBAL enable_external_access = false",
		"SET GLOBAL autoload_known_extensions = false",
		"SET GLOBAL autoinstall_known_extensions = false",
		"SET GLOBAL allow_community_extensions = false",
		"SET GLOBAL lock_configuration = true",
	)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// execute runs statements whose rows nobody wants.
func execute(conn duckdb.Connection, sql string) error {
	var res duckdb.Result
	state := duckdb.Query(conn, sql, &res)
	defer duckdb.DestroyResult(&res)
	if state != duckdb.StateSuccess {
		return resultError(&res)
	}
	return nil
}

// acquire opens a connection, nil when the instance is dead.
func (inst *instance) acquire() (*duckdb.Connection, error) {
	inst.mu.Lock()
	defer inst.mu.Unlock()
	if inst.dead || inst.refs == 0 {
		return nil, nil
	}
	raw := new(duckdb.Connection)
	if duckdb.Connect(inst.db, raw) != duckdb.StateSuccess {
		return nil, fmt.Errorf("connect: DuckDB refuses it")
	}
	inst.refs++
	return raw, nil
}

// kill keeps new connections away; the last release closes the database.
func (inst *instance) kill() {
	inst.mu.Lock()
	inst.dead = true
	inst.mu.Unlock()
}

func (inst *instance) release() {
	inst.mu.Lock()
	inst.refs--
	last := inst.refs == 0
	inst.mu.Unlock()
	if !last {
		return
	}
	duckdb.Close(&inst.db)
	for _, r := range inst.functions {
		r.free()
	}
}
