package inbox

import (
	"context"
	"fmt"

	"github.com/idempotent-go/idempotent/webhook"
)

const settingsSQL = `SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
	current_setting('synchronous_standby_names') FROM idempotent_inbox_events WHERE false
	UNION ALL SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
	current_setting('synchronous_standby_names')`

// Check implements webhook.Store. It reads the settings that decide whether a commit is durable.
func (s *Store) Check(ctx context.Context) (webhook.Durability, error) {
	var fsync, commit, pages, standbys string
	if err := s.pool.QueryRow(ctx, settingsSQL).Scan(&fsync, &commit, &pages, &standbys); err != nil {
		return webhook.Durability{}, fmt.Errorf("inbox: Check: %w (pg.Migrate creates the tables)", err)
	}
	switch {
	case fsync == "off" || pages == "off":
		return webhook.Durability{
			Survives: "the death of Postgres's processes, but not of its machine", Unsafe: true,
			Advice: []string{"Set fsync = on and full_page_writes = on"},
		}, nil
	case commit == "off":
		return webhook.Durability{
			Survives: "a restart of Postgres, but not its crash: the last second may be lost", Unsafe: true,
			Advice: []string{"Set synchronous_commit = on"},
		}, nil
	case standbys == "" || commit == "local":
		return webhook.Durability{
			Survives: "a crash of Postgres and of its machine",
			Advice:   []string{"Use a synchronous standby if a failover must not lose accepted events"},
		}, nil
	}
	return webhook.Durability{Survives: "a crash of Postgres and of its machine, and a failover to a synchronous standby"}, nil
}
