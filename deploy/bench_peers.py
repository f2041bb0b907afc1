"""Measures outside clients and engines for `micromegas bench`. Prints one JSON object.

select-one URI           p50 of SELECT 1 through the micromegas client, ms
stream URI SQL           rows and seconds of a streamed statement
dashboard FILE           best times of DataFusion and DuckDB over the files that FILE lists, ms
"""

import json
import os
import sys
import tempfile
import time


def client(uri):
    from micromegas.flightsql.client import FlightSQLClient

    return FlightSQLClient(uri)


def select_one(uri):
    c = client(uri)
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        for _ in c.query_stream("SELECT 1"):
            pass
        times.append(time.perf_counter() - begin)
    return {"P50": sorted(times)[len(times) // 2] * 1e3}


def stream(uri, sql):
    c = client(uri)
    begin, rows = time.perf_counter(), 0
    for batch in c.query_stream(sql):
        rows += batch.num_rows
    return {"Rows": rows, "Seconds": time.perf_counter() - begin}


def best(run, runs):
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def dashboard(path):
    import datafusion
    import duckdb

    with open(path) as f:
        work = json.load(f)
    links = tempfile.mkdtemp(dir=os.path.dirname(path))
    duck = duckdb.connect()
    duck.execute("SET enable_progress_bar = false")
    duck.execute("CREATE MACRO date_bin(i, t) AS time_bucket(i, t::TIMESTAMP, TIMESTAMP '1970-01-01')")
    duck.execute("CREATE MACRO approx_percentile_cont(v, p) AS approx_quantile(v, p)")
    fusion = datafusion.SessionContext()
    for table, files in work["files"].items():
        duck.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({files!r})")
        folder = os.path.join(links, table)  # it takes a folder, not a list
        os.mkdir(folder)
        for i, f in enumerate(files):
            os.symlink(f, os.path.join(folder, f"{i}.parquet"))
        fusion.register_parquet(table, folder)
    result = {}
    for name, sql in work["queries"].items():
        times = {}
        for engine, run in (("DuckDB", lambda: duck.execute(sql).fetchall()), ("DataFusion", lambda: fusion.sql(sql).collect())):
            try:
                times[engine] = best(run, work["runs"])
            except Exception as e:
                print(f"{engine} {name}: {e}", file=sys.stderr)
                times[engine] = 0
        result[name] = times
    return result


commands = {"select-one": select_one, "stream": stream, "dashboard": dashboard}
print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
