"""Runs statements through the unmodified micromegas client and prints what it returned.

Usage: read.py URI. Reads one JSON object a line, {"sql", "begin", "end"} with RFC 3339 times or nulls, and answers each
with one: {"columns": [[name, type]], "rows": [[value]]} or {"error": text, "kind": class}. Timestamps are printed as
integer nanoseconds, bytes as hexadecimal digits, and floats that JSON has no number for as text.
"""

import json
import math
import sys

import pyarrow as pa
from micromegas.flightsql.client import FlightSQLClient


def cell(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: cell(v) for k, v in value.items()}
    if isinstance(value, list):
        return [cell(v) for v in value]
    return value


def column(array):
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_timestamp(array.type) or pa.types.is_duration(array.type):
        array = array.cast(pa.int64())
    return [cell(v) for v in array.to_pylist()]


def answer(client, request):
    table = client.query_arrow(request["sql"], request.get("begin"), request.get("end"))
    columns = [column(c.combine_chunks() if c.num_chunks != 1 else c.chunk(0)) for c in table.columns]
    return {
        "columns": [[f.name, str(f.type)] for f in table.schema],
        "rows": [list(r) for r in zip(*columns)] if columns else [],
    }


def main():
    client = FlightSQLClient(sys.argv[1])
    for line in sys.stdin:
        try:
            result = answer(client, json.loads(line))
        except Exception as e:  # the test decides which errors are wanted
            result = {"error": str(e), "kind": type(e).__name__}
        print(json.dumps(result), flush=True)


main()
