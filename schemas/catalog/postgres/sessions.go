package postgres

import (
	"context"
	"fmt"
)

// endWithClient begins the transactions that take several round trips: when their client stops, they end.
var endWithClient = fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", maxCommit.Milliseconds())

// endStuck ends this program's sessions that hold locks while they wait for a client that was stopped in the middle of a message
// (wait_event ClientRead). No timeout of the server covers that before version 17. A role may end its own sessions.
const endStuck = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = current_user AND datname = current_database() AND application_name = current_setting('application_name')
  AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'
  AND greatest(xact_start, state_change) < clock_timestamp() - $1::bigint * interval '1 millisecond'`

// evict is called when a lock was waited for in vain.
func (db *DB) evict() {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	ended := 0
	if err := db.pool.QueryRow(ctx, endStuck, db.patience.Milliseconds()).Scan(&ended); err != nil {
		db.log.Warn("stuck sessions not looked for", "err", err)
		return
	}
	if ended > 0 {
		db.log.Warn("ended sessions whose clients had stopped inside a transaction", "sessions", ended)
	}
}
