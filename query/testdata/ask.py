# Answers questions, one JSON object per line of standard input, by asking the FlightSQL server in argv[1] as users'
# notebooks do. One JSON object per question goes to standard output.
import base64, json, sys, warnings

warnings.simplefilter("ignore")
import pyarrow
from micromegas.flightsql.client import FlightSQLClient

url = "grpc://" + sys.argv[1]
clients = {False: FlightSQLClient(url), True: FlightSQLClient(url, preserve_dictionary=True)}


def stream(table):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()


def difference(client, sql, schema):
    prepared = client.prepare_statement(sql).dataset_schema
    return "" if prepared.equals(schema) else f"{prepared}, not {schema}"


for line in sys.stdin:
    q = json.loads(line)
    client, sql = clients[q["dictionaries"]], q["sql"]
    try:
        table = client.query_arrow(sql)
        frame = client.query(sql)
        out = {
            "arrow": stream(table),
            # The client's prepared statements know nothing of preserve_dictionary.
            "prepared": "" if q["dictionaries"] else difference(client, sql, table.schema),
            "columns": list(frame.columns),
            # pandas 3 has a type of its own for text, which was object before.
            "dtypes": ["object" if str(t) == "str" else str(t) for t in frame.dtypes],
            "rows": len(frame),
        }
    except Exception as e:
        out = {"error": type(e).__name__, "message": str(e)}
    print(json.dumps(out))
