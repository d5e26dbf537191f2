package main

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, // pgx's own
	pgx.QueryExecModeCacheDescribe,
	pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec,
	pgx.QueryExecModeSimpleProtocol,
}

// console uses the admin console, in each way that pgx has to send a query.
func console(t *T) {
	for _, mode := range modes {
		config, err := pgx.ParseConfig("")
		t.OK(err)
		config.DefaultQueryExecMode = mode
		conn, err := pgx.ConnectConfig(t.Ctx, config)
		t.OK(err)
		t.Cleanup(func() { conn.Close(context.Background()) })
		t.OK(conn.Ping(t.Ctx))
		for range 3 {
			look(t, conn)
		}
		tag, err := conn.Exec(t.Ctx, "SET query_wait_timeout = $1", "77")
		t.OK(err)
		t.Equal(tag.String(), "SET query_wait_timeout=77")
		t.SQLState(failing(t, conn, "SHOW NOTHING"), "08P01")
		err = execErr(t, conn, "PAUSE $1", "no db")
		t.SQLState(err, "08P01")
		t.Equal(strings.Contains(err.Error(), "no such database: no db"), true)
		tx, err := conn.Begin(t.Ctx)
		t.OK(err)
		exec(t, tx, "RECONNECT")
		t.OK(tx.Commit(t.Ctx))
	}
}

func look(t *T, conn *pgx.Conn) {
	t.Equal(shown[string](t, conn, "SHOW STATE", 1)["active"], "yes")
	t.Equal(shown[int32](t, conn, "SHOW LISTS", 1)["databases"], int32(2))
	t.Equal(shown[int32](t, conn, "SHOW DATABASES", 5)["pgbouncer"], int32(2))
	t.Equal(shown[pgtype.Numeric](t, conn, "SHOW TOTALS", 1)["total_xact_time"].Int.Int64(), int64(0))
}

// shown returns a column of a table by the table's first.
func shown[V any](t *T, conn *pgx.Conn, sql string, column int) map[string]V {
	rows, err := conn.Query(t.Ctx, sql)
	t.OK(err)
	found := map[string]V{}
	for rows.Next() {
		columns := make([]any, len(rows.FieldDescriptions()))
		var name string
		var value V
		columns[0] = &name
		columns[column] = &value
		t.OK(rows.Scan(columns...))
		found[name] = value
	}
	t.OK(rows.Err())
	return found
}
