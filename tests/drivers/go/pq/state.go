package main

// What a session keeps: it must be there in later transactions, and nobody else may have it.

import (
	"database/sql"
	"fmt"
	"os"
	"time"

	"github.com/lib/pq"
)

func statementTimeout(t *T) {
	a, b := open(t, ""), open(t, "")
	exec(t, a, "SET statement_timeout = '150ms'")
	alternate(t, []*sql.Conn{a, b}, 4, func(conn *sql.Conn, number, _ int) {
		t.Equal(value[string](t, conn, "SHOW statement_timeout"), []string{"150ms", "0"}[number])
	})
	tx := transaction(t, b, nil)
	exec(t, tx, "SELECT 1")
	t.SQLState(execErr(t, a, "SELECT pg_sleep(15)"), "57014")
	t.OK(tx.Commit())
	tx = transaction(t, a, nil)
	t.SQLState(execErr(t, tx, "SELECT pg_sleep($1)", 15), "57014")
	t.OK(tx.Rollback())
	exec(t, a, "RESET statement_timeout")
	t.Equal(value[string](t, a, "SHOW statement_timeout"), "0")
}

func temporaryTables(t *T) {
	a, b, c := open(t, ""), open(t, ""), open(t, "")
	exec(t, a, "CREATE TEMPORARY TABLE pq_temporary (n int)")
	exec(t, b, "CREATE TEMPORARY TABLE pq_temporary (n int)")
	alternate(t, []*sql.Conn{a, b, c}, 6, func(conn *sql.Conn, number, round int) {
		if conn == c {
			t.Equal(value[*string](t, c, "SELECT to_regclass('pq_temporary')::text"), (*string)(nil))
			return
		}
		step := []int{1, 100}[number]
		exec(t, conn, "INSERT INTO pq_temporary VALUES ($1)", step)
		t.Equal(value[int](t, conn, "SELECT sum(n) FROM pq_temporary"), step*(round+1))
	})
	exec(t, a, "DROP TABLE pq_temporary")
	exec(t, b, "DROP TABLE pq_temporary")
}

func settings(t *T) {
	conns := []*sql.Conn{open(t, ""), open(t, ""), open(t, "application_name=third")}
	own := [][3]string{{"pg_catalog", "Asia/Tokyo", "first"}, {"public", "America/Lima", "second"}}
	for number, values := range own {
		tx := transaction(t, conns[number], nil)
		exec(t, tx, "SET search_path TO "+values[0])
		exec(t, tx, fmt.Sprintf("SET TIME ZONE '%s'", values[1]))
		exec(t, tx, "SELECT set_config('application_name', $1, false)", values[2])
		t.OK(tx.Commit())
	}
	show := func(conn *sql.Conn) (got [3]string) {
		t.OK(conn.QueryRowContext(t.Ctx, "SELECT current_setting('search_path'), current_setting('timezone'),"+
			" current_setting('application_name')").Scan(&got[0], &got[1], &got[2]))
		return got
	}
	own = append(own, show(conns[2]))
	t.Equal(own[2][2], "third")
	alternate(t, conns, 9, func(conn *sql.Conn, number, _ int) { t.Equal(show(conn), own[number]) })
}

func role(t *T) {
	a, b := open(t, ""), open(t, "")
	exec(t, a, "SET ROLE pg_read_all_stats")
	alternate(t, []*sql.Conn{a, b}, 4, func(conn *sql.Conn, number, _ int) {
		t.Equal(value[string](t, conn, "SELECT current_user"), []string{"pg_read_all_stats", user}[number])
	})
	exec(t, a, "RESET ROLE")
	t.Equal(value[string](t, a, "SELECT current_user"), user)
}

func listen(t *T) {
	listener := pq.NewListener(standard, time.Second, time.Second, nil)
	defer listener.Close()
	t.OK(listener.Listen("pq"))
	b := open(t, "")
	for _, payload := range []string{"one", "zwölf"} {
		exec(t, b, "SELECT pg_notify($1, $2)", "pq", payload)
		select {
		case got := <-listener.Notify:
			t.Equal([]string{got.Channel, got.Extra}, []string{"pq", payload})
		case <-time.After(5 * time.Second):
			t.Fail("no notification")
		}
		t.OK(listener.Ping())
	}
	t.OK(listener.Unlisten("pq"))
}

func advisoryLocks(t *T) {
	a, b := open(t, ""), open(t, "")
	key := os.Getpid()
	try := func(conn *sql.Conn) bool { return value[bool](t, conn, "SELECT pg_try_advisory_lock($1)", key) }
	unlock := func(conn *sql.Conn) bool { return value[bool](t, conn, "SELECT pg_advisory_unlock($1)", key) }
	exec(t, a, "SELECT pg_advisory_lock($1)", key)
	alternate(t, []*sql.Conn{a, b}, 4, func(conn *sql.Conn, _, _ int) {
		t.Equal(try(conn), conn == a)
		if conn == a {
			t.Equal(unlock(a), true) // once for each time it was taken
		}
	})
	t.Equal([]bool{unlock(a), try(b), unlock(b)}, []bool{true, true, true})
}
