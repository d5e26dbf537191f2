// The checklist with lib/pq; where to connect to is in PGHOST, PGPORT, ...
//
// Its sslmode is `require` unless another one is set.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	"hyperpool.test/drivers/checklist"
)

type T = checklist.T

const standard = "sslmode=prefer "

var user = os.Getenv("PGUSER")

// pool opens a database, which is a pool of connections.
func pool(t *T, settings string) *sql.DB {
	db, err := sql.Open("postgres", standard+settings)
	t.OK(err)
	t.Cleanup(func() { db.Close() })
	return db
}

// open takes a connection of its own.
func open(t *T, settings string) *sql.Conn {
	conn, err := pool(t, settings).Conn(t.Ctx)
	t.OK(err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// queryer is a pool, a connection or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func exec(t *T, on queryer, query string, args ...any) {
	t.OK(execErr(t, on, query, args...))
}

func execErr(t *T, on queryer, query string, args ...any) error {
	_, err := on.ExecContext(t.Ctx, query, args...)
	return err
}

// collect returns the only column of all rows.
func collect[V any](t *T, on queryer, query string, args ...any) ([]V, error) {
	rows, err := on.QueryContext(t.Ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []V
	for rows.Next() {
		var one V
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// value returns the only column of the only row.
func value[V any](t *T, on queryer, query string, args ...any) V {
	all, err := collect[V](t, on, query, args...)
	t.OK(err)
	t.Equal(len(all), 1)
	return all[0]
}

func failing(t *T, on queryer, query string, args ...any) error {
	_, err := collect[any](t, on, query, args...)
	return err
}

func table(t *T, on queryer, name, columns string) {
	exec(t, on, "DROP TABLE IF EXISTS "+name)
	exec(t, on, fmt.Sprintf("CREATE TABLE %s (%s)", name, columns))
	t.Cleanup(func() { on.ExecContext(context.Background(), "DROP TABLE IF EXISTS "+name) })
}

func transaction(t *T, conn *sql.Conn, options *sql.TxOptions) *sql.Tx {
	tx, err := conn.BeginTx(t.Ctx, options)
	t.OK(err)
	return tx
}

func alternate(t *T, conns []*sql.Conn, rounds int, check func(conn *sql.Conn, number, round int)) {
	var tx *sql.Tx
	begin := func(t *T, conn *sql.Conn) { tx = transaction(t, conn, nil) }
	commit := func(t *T, _ *sql.Conn) { t.OK(tx.Commit()) }
	checklist.Alternate(t, conns, rounds, begin, commit, check)
}

func connect(t *T) {
	a := open(t, "application_name='go pq'")
	t.OK(a.PingContext(t.Ctx))
	t.Equal(value[string](t, a, "SELECT current_user"), user)
	t.Equal(value[string](t, a, "SHOW application_name"), "go pq")
	t.SQLState(pool(t, "password=wrong").PingContext(t.Ctx), "28P01")
}

func types(t *T) {
	a := open(t, "")
	rows, err := a.QueryContext(t.Ctx, `SELECT 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, 12.340::numeric,
		true, 'zwölf €', '\x00ff'::bytea, '2024-02-29 12:00:00.123+00'::timestamptz,
		'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid, '{"a": [1, null]}'::jsonb, ARRAY[1, 3]::int[],
		ARRAY['a', 'b"c', NULL], NULL::int`)
	t.OK(err)
	defer rows.Close()
	t.Equal(rows.Next(), true)
	var (
		small, integer, big  any
		float, numeric, text any
		boolean, binary, id  any
		moment               time.Time
		document             []byte
		ints                 []int64
		texts                []sql.NullString
		nothing              sql.NullInt32
	)
	t.OK(rows.Scan(&small, &integer, &big, &float, &numeric, &boolean, &text, &binary, &moment, &id, &document,
		pq.Array(&ints), pq.Array(&texts), &nothing))
	t.Equal([]any{small, integer, big, float, boolean, text, binary},
		[]any{int64(1), int64(2), int64(9007199254740993), 1.5, true, "zwölf €", []byte{0, 255}})
	t.Equal(fmt.Sprintf("%s", numeric), "12.340")
	t.Equal(fmt.Sprintf("%s", id), "f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
	t.Equal(moment.UTC(), time.Date(2024, 2, 29, 12, 0, 0, 123e6, time.UTC))
	var parsed map[string][]any
	t.OK(json.Unmarshal(document, &parsed))
	t.Equal(parsed, map[string][]any{"a": {1.0, nil}})
	t.Equal(ints, []int64{1, 3})
	t.Equal(texts, []sql.NullString{{String: "a", Valid: true}, {String: `b"c`, Valid: true}, {}})
	t.Equal(nothing.Valid, false)
}

func parameters(t *T) {
	a := open(t, "")
	binary := make([]byte, 256)
	for n := range binary {
		binary[n] = byte(n)
	}
	moment := time.Date(2024, 2, 29, 12, 0, 0, 123e6, time.UTC)
	rows, err := a.QueryContext(t.Ctx,
		"SELECT $1::int, $2::text, $3::bytea, $4::timestamptz, $5::jsonb ->> 'x', $6::int[], $7::text, $8::bool",
		7, "it's", binary, moment, `{"x": "y"}`, pq.Array([]int64{1, 3}), nil, false)
	t.OK(err)
	defer rows.Close()
	t.Equal(rows.Next(), true)
	var number, text, blob, when, member, absent, flag any
	var ints []int64
	t.OK(rows.Scan(&number, &text, &blob, &when, &member, pq.Array(&ints), &absent, &flag))
	t.OK(rows.Close())
	t.Equal([]any{number, text, blob, when.(time.Time).UTC(), member, ints, absent, flag},
		[]any{int64(7), "it's", binary, moment, "y", []int64{1, 3}, nil, false})
	long := strings.Repeat("é", 500_000)
	t.Equal(value[string](t, a, "SELECT $1::text", long), long)
	sum, many := make([]string, 1000), make([]any, 1000)
	for n := range many {
		sum[n], many[n] = fmt.Sprintf("$%d::int", n+1), n
	}
	t.Equal(value[int](t, a, "SELECT "+strings.Join(sum, " + "), many...), 499_500)
	t.SQLState(failing(t, a, "SELECT $1::int", "seven"), "22P02")
	t.Equal(value[int](t, a, "SELECT $1::int", 8), 8)
}

func prepared(t *T) {
	conns := []*sql.Conn{open(t, ""), open(t, ""), open(t, "")}
	servers := make([]map[int]bool, len(conns))
	own := make([]*sql.Stmt, len(conns))
	for number, conn := range conns {
		servers[number] = map[int]bool{}
		// The driver counts the names, so that they are the same on each connection.
		var err error
		own[number], err = conn.PrepareContext(t.Ctx, fmt.Sprintf("SELECT $1::int + %d, pg_backend_pid()", number))
		t.OK(err)
	}
	alternate(t, conns, 30, func(conn *sql.Conn, number, round int) {
		me := number*1000 + round
		var got, pid int
		t.OK(own[number].QueryRowContext(t.Ctx, me).Scan(&got, &pid))
		t.Equal(got, me+number)
		servers[number][pid] = true
		t.Equal(value[string](t, conn, "SELECT $1::text", fmt.Sprint("t", me)), fmt.Sprint("t", me))
		late, err := conn.PrepareContext(t.Ctx, fmt.Sprintf("SELECT $1::int - %d", round))
		t.OK(err)
		for n := range 3 {
			t.OK(late.QueryRowContext(t.Ctx, n).Scan(&got))
			t.Equal(got, n-round)
		}
		t.OK(late.Close())
	})
	quotient, err := conns[0].PrepareContext(t.Ctx, "SELECT 12 / $1::int")
	t.OK(err)
	var got int
	t.SQLState(quotient.QueryRowContext(t.Ctx, 0).Scan(&got), "22012")
	t.OK(quotient.QueryRowContext(t.Ctx, 4).Scan(&got))
	t.Equal(got, 3)
	_, err = conns[0].PrepareContext(t.Ctx, "SELECT nothing_of_this_name")
	t.SQLState(err, "42703")

	// The pool prepares the statement again on each connection that it comes to.
	db := pool(t, "")
	db.SetMaxOpenConns(8)
	square, err := db.PrepareContext(t.Ctx, "SELECT $1::int * $1::int")
	t.OK(err)
	squares := make([]int, 200)
	problems := make([]error, len(squares))
	var all sync.WaitGroup
	for n := range squares {
		all.Go(func() { problems[n] = square.QueryRowContext(t.Ctx, n).Scan(&squares[n]) })
	}
	all.Wait()
	t.OK(errors.Join(problems...))
	for n, square := range squares {
		t.Equal(square, n*n)
	}
	met := 0
	for _, pids := range servers {
		met = max(met, len(pids))
	}
	t.Note("a connection has met %d servers", met)
}

func transactions(t *T) {
	a, b := open(t, ""), open(t, "")
	table(t, a, "pq_transactions", "n int")
	count := func() int { return value[int](t, b, "SELECT count(*) FROM pq_transactions") }
	tx := transaction(t, a, nil)
	exec(t, tx, "INSERT INTO pq_transactions VALUES ($1), ($2)", 1, 2)
	t.Equal(count(), 0)
	t.OK(tx.Commit())
	t.Equal(count(), 2)
	tx = transaction(t, a, nil)
	exec(t, tx, "INSERT INTO pq_transactions VALUES (3)")
	t.OK(tx.Rollback())
	t.Equal(count(), 2)
	tx = transaction(t, a, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	t.Equal(value[string](t, tx, "SHOW transaction_isolation"), "serializable")
	t.SQLState(execErr(t, tx, "INSERT INTO pq_transactions VALUES (4)"), "25006")
	t.SQLState(execErr(t, tx, "SELECT 1"), "25P02")
	t.Equal(tx.Commit() != nil, true) // it was a rollback
	t.Equal(value[string](t, a, "SHOW transaction_isolation"), "read committed")
	t.Equal(count(), 2)
}

func savepoints(t *T) {
	a := open(t, "")
	table(t, a, "pq_savepoints", "n int PRIMARY KEY")
	tx := transaction(t, a, nil)
	exec(t, tx, "INSERT INTO pq_savepoints VALUES (1)")
	exec(t, tx, "SAVEPOINT one")
	t.SQLState(execErr(t, tx, "INSERT INTO pq_savepoints VALUES ($1)", 1), "23505")
	exec(t, tx, "ROLLBACK TO SAVEPOINT one")
	exec(t, tx, "INSERT INTO pq_savepoints VALUES (2)")
	exec(t, tx, "RELEASE SAVEPOINT one")
	t.OK(tx.Commit())
	got, err := collect[int](t, a, "SELECT n FROM pq_savepoints ORDER BY n")
	t.OK(err)
	t.Equal(got, []int{1, 2})
}

// copying copies in alone: the driver has no COPY TO STDOUT.
func copying(t *T) {
	a := open(t, "")
	table(t, a, "pq_copy", "n int, t text")
	tx := transaction(t, a, nil)
	copyIn, err := tx.PrepareContext(t.Ctx, pq.CopyIn("pq_copy", "n", "t"))
	t.OK(err)
	for n := range 20_000 {
		_, err := copyIn.ExecContext(t.Ctx, n, fmt.Sprint("row ", n))
		t.OK(err)
	}
	result, err := copyIn.ExecContext(t.Ctx)
	t.OK(err)
	count, err := result.RowsAffected()
	t.OK(err)
	t.Equal(count, int64(20_000))
	t.OK(copyIn.Close())
	t.OK(tx.Commit())
	t.Equal(value[int](t, a, "SELECT sum(n) FROM pq_copy"), 199_990_000)

	tx = transaction(t, a, nil)
	copyIn, err = tx.PrepareContext(t.Ctx, pq.CopyIn("pq_copy", "n", "t"))
	t.OK(err)
	_, err = copyIn.ExecContext(t.Ctx, "one", "two")
	t.OK(err)
	_, err = copyIn.ExecContext(t.Ctx)
	t.SQLState(err, "22P02")
	t.OK(tx.Rollback())
	t.Equal(value[int](t, a, "SELECT count(*) FROM pq_copy"), 20_000)
}

func cancel(t *T) {
	a, b := pool(t, ""), open(t, "")
	a.SetMaxOpenConns(1)
	ctx, giveUp := context.WithCancel(t.Ctx)
	defer giveUp()
	ended := make(chan error, 1)
	go func() {
		_, err := a.ExecContext(ctx, "SELECT pg_sleep(15) AS pq")
		ended <- err
	}()
	for value[int](t, b, "SELECT count(*) FROM pg_stat_activity"+
		" WHERE query LIKE '%pg_sleep(15) AS pq' AND wait_event = 'PgSleep'") == 0 {
	}
	giveUp()
	t.SQLState(<-ended, "57014")
	t.Equal(value[int](t, a, "SELECT 1"), 1) // on a new connection: database/sql gives up a cancelled one
}

func notices(t *T) {
	connector, err := pq.NewConnector(standard)
	t.OK(err)
	var seen []string
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(notice *pq.Error) {
		seen = append(seen, fmt.Sprintf("%s %s %s", notice.Severity, notice.Message, notice.Code))
	}))
	defer db.Close()
	exec(t, db, "DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$")
	t.Equal(seen, []string{"NOTICE hear me 00000", "WARNING and this 01000"})
}

func largeRows(t *T) {
	a := open(t, "")
	got := value[[]byte](t, a, "SELECT repeat('0123456789', 500000)")
	t.Equal(bytes.Equal(got, bytes.Repeat([]byte("0123456789"), 500_000)), true)
	rows, err := a.QueryContext(t.Ctx, "SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n")
	t.OK(err)
	var n, sum int
	var hash string
	for rows.Next() {
		t.OK(rows.Scan(&n, &hash))
		sum += n
	}
	t.OK(rows.Err())
	t.Equal(sum, 1_250_025_000)
	rows, err = a.QueryContext(t.Ctx, "SELECT n FROM generate_series($1::int, 50000) AS n", 1)
	t.OK(err)
	t.Equal(rows.Next(), true) // the other rows are left unread
	t.OK(rows.Close())
	tx := transaction(t, a, nil)
	exec(t, tx, "DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 5000) AS n")
	sum = 0
	for {
		part, err := collect[int](t, tx, "FETCH 700 FROM c")
		t.OK(err)
		if len(part) == 0 {
			break
		}
		for _, n := range part {
			sum += n
		}
	}
	t.OK(tx.Commit())
	t.Equal(sum, 12_502_500)
}

func reconnect(t *T) {
	db := pool(t, "")
	db.SetMaxOpenConns(1)
	b := open(t, "")
	tx, err := db.BeginTx(t.Ctx, nil)
	t.OK(err)
	pid := value[int](t, tx, "SELECT pg_backend_pid()")
	t.Equal(value[bool](t, b, "SELECT pg_terminate_backend($1, 5000)", pid), true)
	t.Lost(execErr(t, tx, "SELECT 1"))
	t.Equal(tx.Rollback() != nil, true)
	t.Equal(value[int](t, db, "SELECT 1"), 1) // on a new connection of the pool
	t.Equal(value[int](t, b, "SELECT 2"), 2)
}

func main() {
	checklist.Run(map[string]checklist.Cell{
		"connect":           connect,
		"types":             types,
		"parameters":        parameters,
		"prepared":          prepared,
		"pipelining":        checklist.None("database/sql waits for the answer to each statement"),
		"transactions":      transactions,
		"savepoints":        savepoints,
		"copy":              copying,
		"cancel":            cancel,
		"statement_timeout": statementTimeout,
		"notices":           notices,
		"large_rows":        largeRows,
		"reconnect":         reconnect,
		"temporary_tables":  temporaryTables,
		"settings":          settings,
		"role":              role,
		"listen":            listen,
		"advisory_locks":    advisoryLocks,
		"console":           console, // of a pooler, with another database
	})
}
