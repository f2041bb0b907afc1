package postgres

import (
	"context"
	"fmt"
	"time"
)

// stuckAfter is how long a session may wait for its client inside a transaction before others end it. No healthy one does for more
// than the time that the rest of a message takes to come.
const stuckAfter = 10 * time.Second

// endStuck ends this role's sessions that hold locks while they wait for a client that was stopped in the middle of a message
// (wait_event ClientRead). No timeout of the server covers that before version 17. A role may end its own sessions.
var endStuck = fmt.Sprintf(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = current_user AND datname = current_database() AND application_name = current_setting('application_name')
  AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'
  AND xact_start < clock_timestamp() - interval '%d milliseconds' AND state_change < clock_timestamp() - interval '%d milliseconds'`,
	stuckAfter.Milliseconds(), stuckAfter.Milliseconds())

// evict is called when a lock was waited for in vain.
func (db *DB) evict() {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	ended := 0
	if err := db.pool.QueryRow(ctx, endStuck).Scan(&ended); err != nil {
		db.log.Warn("stuck sessions not looked for", "err", err)
		return
	}
	if ended > 0 {
		db.log.Warn("ended sessions whose clients had stopped inside a transaction", "sessions", ended)
	}
}
