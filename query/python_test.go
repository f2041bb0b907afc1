package query_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/deploy/pyclient"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/identity"
)

// pythonScript asks the server in argv[1] with the key in argv[2] as users' notebooks do.
const pythonScript = `
import sys, datetime, warnings
warnings.simplefilter("ignore")
from micromegas.flightsql.client import FlightSQLClient
class Token:
    def get_token(self): return sys.argv[2]
client = FlightSQLClient("grpc://" + sys.argv[1], auth_provider=Token())
begin = datetime.datetime(2026, 3, 1, 10, tzinfo=datetime.timezone.utc)
end = begin + datetime.timedelta(hours=1)
df = client.query("SELECT * FROM log_entries ORDER BY time", begin, end)
print(len(df), df.time.dtype, df.time.astype("int64")[1], df.msg[1], df.properties[3].hex(), df.level.dtype)
print(sum(b.num_rows for b in client.query_stream("SELECT * FROM blocks", begin, end)))
print(len(client.query("SELECT * FROM log_entries WHERE level = 99", begin, end).columns))
print(client.query("SELECT tags FROM streams ORDER BY stream_id").tags[0])
st = client.prepare_statement("select count(*) from log_entries")
print(st.query, st.dataset_schema.field(0).name, st.dataset_schema.field(0).type, st.dataset_schema.field(0).nullable)
kept = FlightSQLClient("grpc://" + sys.argv[1], auth_provider=Token(), preserve_dictionary=True)
df = kept.query("SELECT process_id, properties FROM log_entries ORDER BY time", begin, end)
print(df.process_id.dtype, df.process_id[0], df.properties.dtype)
for sql in ["SELEC 1", "SELECT 1; SELECT 2", "SELECT * FROM view_instance('log_entries','99999999-9999-4999-8999-999999999999')"]:
    try:
        client.query(sql)
        print("no error")
    except Exception as e:
        print(type(e).__name__)
`

func TestPythonClient(t *testing.T) {
	keys, err := identity.ParseKeys(`[{"name":"notebook","key":"k-1"}]`)
	if err != nil {
		t.Fatal(err)
	}
	// The bus has no owner, so every answer comes with a warning beside its schema: the client must not mind.
	e := querytest.Start(t, querytest.Options{Keys: keys, Bus: &fakeBus{err: bus.ErrNoOwner}, Config: func(c *query.Config) {
		c.FreshenTimeout = 50 * time.Millisecond
	}})
	e.Fixture(t)
	got := strings.TrimSpace(string(pyclient.Run(t, pythonScript, e.Address, "k-1")))
	want := strings.TrimSpace(`
8 datetime64[ns, UTC] 1772359202500000001 slow peer 40000000 int32
11
13
['log']
select count(*) from log_entries count(*) int64 False
category 11111111-1111-4111-8111-111111111111 category
ArrowInvalid
ArrowNotImplementedError
FlightInternalError
`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the client printed (-want +got):\n%s", diff)
	}
}
