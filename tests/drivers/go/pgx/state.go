package main

// What a session keeps: it must be there in later transactions, and nobody else may have it.

import (
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
)

func statementTimeout(t *T) {
	a, b := open(t, ""), open(t, "")
	exec(t, a, "SET statement_timeout = '150ms'")
	alternate(t, []*pgx.Conn{a, b}, 4, func(conn *pgx.Conn, number, _ int) {
		t.Equal(value[string](t, conn, "SHOW statement_timeout"), []string{"150ms", "0"}[number])
	})
	t.OK(pgx.BeginFunc(t.Ctx, b, func(tx pgx.Tx) error {
		exec(t, tx, "SELECT 1")
		t.SQLState(execErr(t, a, "SELECT pg_sleep(15)"), "57014")
		return nil
	}))
	t.SQLState(pgx.BeginFunc(t.Ctx, a, func(tx pgx.Tx) error {
		return execErr(t, tx, "SELECT pg_sleep($1)", 15.0)
	}), "57014")
	exec(t, a, "RESET statement_timeout")
	t.Equal(value[string](t, a, "SHOW statement_timeout"), "0")
}

func temporaryTables(t *T) {
	a, b, c := open(t, ""), open(t, ""), open(t, "")
	exec(t, a, "CREATE TEMPORARY TABLE pgx_temporary (n int)")
	exec(t, b, "CREATE TEMPORARY TABLE pgx_temporary (n int)")
	alternate(t, []*pgx.Conn{a, b, c}, 6, func(conn *pgx.Conn, number, round int) {
		if conn == c {
			t.Equal(value[*string](t, c, "SELECT to_regclass('pgx_temporary')::text"), (*string)(nil))
			return
		}
		step := []int{1, 100}[number]
		exec(t, conn, "INSERT INTO pgx_temporary VALUES ($1)", step)
		t.Equal(value[int](t, conn, "SELECT sum(n)::int FROM pgx_temporary"), step*(round+1))
	})
	rows := [][]any{{1000}}
	_, err := a.CopyFrom(t.Ctx, pgx.Identifier{"pgx_temporary"}, []string{"n"}, pgx.CopyFromRows(rows))
	t.OK(err)
	t.Equal(value[int](t, a, "SELECT max(n) FROM pgx_temporary"), 1000)
	exec(t, a, "DROP TABLE pgx_temporary")
	exec(t, b, "DROP TABLE pgx_temporary")
}

func settings(t *T) {
	conns := []*pgx.Conn{open(t, ""), open(t, ""), open(t, "application_name=third")}
	own := [][3]string{{"pg_catalog", "Asia/Tokyo", "first"}, {"public", "America/Lima", "second"}}
	for number, values := range own {
		t.OK(pgx.BeginFunc(t.Ctx, conns[number], func(tx pgx.Tx) error {
			exec(t, tx, "SET search_path TO "+values[0])
			exec(t, tx, fmt.Sprintf("SET TIME ZONE '%s'", values[1]))
			exec(t, tx, "SELECT set_config('application_name', $1, false)", values[2])
			return nil
		}))
	}
	show := func(conn *pgx.Conn) (got [3]string) {
		t.OK(conn.QueryRow(t.Ctx, "SELECT current_setting('search_path'), current_setting('timezone'),"+
			" current_setting('application_name')").Scan(&got[0], &got[1], &got[2]))
		return got
	}
	own = append(own, show(conns[2]))
	t.Equal(own[2][2], "third")
	alternate(t, conns, 9, func(conn *pgx.Conn, number, _ int) { t.Equal(show(conn), own[number]) })
}

func role(t *T) {
	a, b := open(t, ""), open(t, "")
	exec(t, a, "SET ROLE pg_read_all_stats")
	alternate(t, []*pgx.Conn{a, b}, 4, func(conn *pgx.Conn, number, _ int) {
		t.Equal(value[string](t, conn, "SELECT current_user::text"), []string{"pg_read_all_stats", user}[number])
	})
	exec(t, a, "RESET ROLE")
	t.Equal(value[string](t, a, "SELECT current_user::text"), user)
}

func listen(t *T) {
	a, b := open(t, ""), open(t, "")
	exec(t, a, "LISTEN pgx")
	for _, payload := range []string{"one", "zwölf"} {
		exec(t, b, "SELECT pg_notify($1, $2)", "pgx", payload)
		got, err := a.WaitForNotification(t.Ctx)
		t.OK(err)
		t.Equal([]string{got.Channel, got.Payload}, []string{"pgx", payload})
		t.Equal(value[int](t, a, "SELECT 1"), 1)
	}
	exec(t, a, "UNLISTEN pgx")
}

func advisoryLocks(t *T) {
	a, b := open(t, ""), open(t, "")
	key := os.Getpid()
	try := func(conn *pgx.Conn) bool { return value[bool](t, conn, "SELECT pg_try_advisory_lock($1)", key) }
	unlock := func(conn *pgx.Conn) bool { return value[bool](t, conn, "SELECT pg_advisory_unlock($1)", key) }
	exec(t, a, "SELECT pg_advisory_lock($1)", key)
	alternate(t, []*pgx.Conn{a, b}, 4, func(conn *pgx.Conn, _, _ int) {
		t.Equal(try(conn), conn == a)
		if conn == a {
			t.Equal(unlock(a), true) // once for each time it was taken
		}
	})
	t.Equal([]bool{unlock(a), try(b), unlock(b)}, []bool{true, true, true})
}
