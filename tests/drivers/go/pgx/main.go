// The checklist with pgx, settings as they are; where to connect to is in PGHOST, PGPORT, ...
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"hyperpool.test/drivers/checklist"
)

type T = checklist.T

var user = os.Getenv("PGUSER")

func open(t *T, settings string) *pgx.Conn {
	conn, err := pgx.Connect(t.Ctx, settings)
	t.OK(err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// queryer is a connection, a transaction or a pool.
type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func exec(t *T, on queryer, sql string, args ...any) {
	_, err := on.Exec(t.Ctx, sql, args...)
	t.OK(err)
}

func execErr(t *T, on queryer, sql string, args ...any) error {
	_, err := on.Exec(t.Ctx, sql, args...)
	return err
}

// value returns the only column of the only row.
func value[V any](t *T, on queryer, sql string, args ...any) V {
	rows, err := on.Query(t.Ctx, sql, args...)
	t.OK(err)
	got, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[V])
	t.OK(err)
	return got
}

// failing returns the error of a query that has rows.
func failing(t *T, on queryer, sql string, args ...any) error {
	rows, err := on.Query(t.Ctx, sql, args...)
	if err == nil {
		_, err = pgx.CollectRows(rows, pgx.RowTo[any])
	}
	return err
}

func table(t *T, on queryer, name, columns string) {
	exec(t, on, "DROP TABLE IF EXISTS "+name)
	exec(t, on, fmt.Sprintf("CREATE TABLE %s (%s)", name, columns))
	t.Cleanup(func() { on.Exec(context.Background(), "DROP TABLE IF EXISTS "+name) })
}

func alternate(t *T, conns []*pgx.Conn, rounds int, check func(conn *pgx.Conn, number, round int)) {
	var tx pgx.Tx
	begin := func(t *T, conn *pgx.Conn) {
		var err error
		tx, err = conn.Begin(t.Ctx)
		t.OK(err)
	}
	commit := func(t *T, _ *pgx.Conn) { t.OK(tx.Commit(t.Ctx)) }
	checklist.Alternate(t, conns, rounds, begin, commit, check)
}

func connect(t *T) {
	a := open(t, "application_name='go pgx'")
	t.Equal(value[string](t, a, "SELECT current_user::text"), user)
	t.Equal(value[string](t, a, "SHOW application_name"), "go pgx")
	t.Equal(a.PgConn().ParameterStatus("client_encoding"), "UTF8")
	_, err := pgx.Connect(t.Ctx, "password=wrong")
	t.SQLState(err, "28P01")
}

func types(t *T) {
	a := open(t, "")
	row := a.QueryRow(t.Ctx, `SELECT 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, 12.340::numeric, true,
		'zwölf €', '\x00ff'::bytea, '2024-02-29 12:00:00.123+00'::timestamptz,
		'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid, '{"a": [1, null]}'::jsonb, ARRAY[1, NULL, 3],
		ARRAY['a', 'b"c', NULL], NULL::int, '1 day 2 hours'::interval`)
	var (
		small    int16
		integer  int32
		big      int64
		float    float64
		numeric  pgtype.Numeric
		boolean  bool
		text     string
		binary   []byte
		moment   time.Time
		id       [16]byte
		json     map[string][]*int
		ints     []*int32
		texts    []*string
		nothing  *int
		interval pgtype.Interval
	)
	t.OK(row.Scan(&small, &integer, &big, &float, &numeric, &boolean, &text, &binary, &moment, &id, &json, &ints,
		&texts, &nothing, &interval))
	one, three, b := int32(1), int32(3), `b"c`
	t.Equal([]any{small, integer, big, float, boolean, text, binary, nothing, *texts[1]},
		[]any{int16(1), int32(2), int64(9007199254740993), 1.5, true, "zwölf €", []byte{0, 255}, (*int)(nil), b})
	exact, err := numeric.Value()
	t.OK(err)
	t.Equal(exact, "12.340")
	t.Equal(moment.UTC(), time.Date(2024, 2, 29, 12, 0, 0, 123e6, time.UTC))
	t.Equal(fmt.Sprintf("%x", id), "f81d4fae7dec11d0a76500a0c91e6bf6")
	t.Equal([]any{*json["a"][0], json["a"][1]}, []any{1, (*int)(nil)})
	t.Equal(ints, []*int32{&one, nil, &three})
	t.Equal([]any{interval.Days, interval.Microseconds}, []any{int32(1), int64(7_200_000_000)})
}

func parameters(t *T) {
	a := open(t, "")
	binary := make([]byte, 256)
	for n := range binary {
		binary[n] = byte(n)
	}
	moment := time.Date(2024, 2, 29, 12, 0, 0, 123e6, time.UTC)
	type row struct {
		A int
		B string
		C []byte
		D time.Time
		E map[string]int
		F []int
		G *string
		H bool
	}
	rows, err := a.Query(t.Ctx,
		"SELECT $1::int a, $2::text b, $3::bytea c, $4::timestamptz d, $5::jsonb e, $6::int[] f, $7::text g, $8::bool h",
		7, "it's", binary, moment, map[string]int{"x": 1}, []int{1, 3}, nil, false)
	t.OK(err)
	got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[row])
	t.OK(err)
	got.D = got.D.UTC()
	t.Equal(got, row{7, "it's", binary, moment, map[string]int{"x": 1}, []int{1, 3}, nil, false})
	long := strings.Repeat("é", 500_000)
	t.Equal(value[string](t, a, "SELECT $1::text", long), long)
	sum, many := make([]string, 1000), make([]any, 1000)
	for n := range many {
		sum[n], many[n] = fmt.Sprintf("$%d::int", n+1), n
	}
	t.Equal(value[int](t, a, "SELECT "+strings.Join(sum, " + "), many...), 499_500)
	t.SQLState(failing(t, a, "SELECT $1::text::int", "seven"), "22P02")
	t.Equal(value[int](t, a, "SELECT $1::int", 8), 8)
}

func prepared(t *T) {
	conns := []*pgx.Conn{open(t, ""), open(t, ""), open(t, "")}
	servers := make([]map[int]bool, len(conns))
	for number, conn := range conns {
		servers[number] = map[int]bool{}
		// The same name means another statement on each connection.
		_, err := conn.Prepare(t.Ctx, "own", fmt.Sprintf("SELECT $1::int + %d", number))
		t.OK(err)
	}
	alternate(t, conns, 30, func(conn *pgx.Conn, number, round int) {
		me := number*1000 + round
		t.Equal(value[int](t, conn, "own", me), me+number)
		t.Equal(value[string](t, conn, "SELECT $1::text", fmt.Sprint("t", me)), fmt.Sprint("t", me))
		servers[number][value[int](t, conn, "SELECT pg_backend_pid()")] = true
		t.Equal(value[int](t, conn, fmt.Sprintf("SELECT %d", round%7)), round%7)
	})
	a := conns[0]
	t.Equal(value[int](t, a, "SELECT 12 / $1::int", 3), 4)
	t.SQLState(failing(t, a, "SELECT 12 / $1::int", 0), "22012")
	t.Equal(value[int](t, a, "SELECT 12 / $1::int", 4), 3)
	t.OK(a.Deallocate(t.Ctx, "own"))
	_, err := a.Prepare(t.Ctx, "own", "SELECT $1::text || '!'")
	t.OK(err)
	t.Equal(value[string](t, a, "own", "new"), "new!")
	for n := range 600 { // its cache has 512 places
		t.Equal(value[int](t, a, fmt.Sprintf("SELECT %d + $1::int", n), 1), n+1)
	}
	t.Equal(value[string](t, a, "SELECT $1::text", "again"), "again")
	t.OK(a.DeallocateAll(t.Ctx))
	t.Equal(value[string](t, a, "SELECT $1::text", "and again"), "and again")

	pool, err := pgxpool.New(t.Ctx, "")
	t.OK(err)
	t.Cleanup(pool.Close)
	squares := make([]int, 200)
	problems := make([]error, len(squares))
	var all sync.WaitGroup
	for n := range squares {
		all.Go(func() {
			problems[n] = pool.QueryRow(t.Ctx, "SELECT $1::int * $1::int", n).Scan(&squares[n])
		})
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

func pipelining(t *T) {
	a, b := open(t, ""), open(t, "")
	batch := func() *pgx.Batch {
		batch := &pgx.Batch{}
		batch.Queue("SELECT 1")
		for n := 2; n < 5; n++ {
			batch.Queue("SELECT $1::int", n)
		}
		return batch
	}
	for range 5 {
		for _, conn := range []*pgx.Conn{a, b} {
			results := conn.SendBatch(t.Ctx, batch())
			for n := 1; n < 5; n++ {
				var got int
				t.OK(results.QueryRow().Scan(&got))
				t.Equal(got, n)
			}
			t.OK(results.Close())

			failing := batch()
			failing.Queue("SELECT 1 / $1::int", 0)
			failing.Queue("SELECT 5")
			t.SQLState(conn.SendBatch(t.Ctx, failing).Close(), "22012")
		}
	}
	stages(t, a)
}

// stages uses the driver's lower layer, where the program says when to synchronize.
func stages(t *T, a *pgx.Conn) {
	pipeline := a.PgConn().StartPipeline(t.Ctx)
	pipeline.SendPrepare("staged", "SELECT $1::text", nil)
	pipeline.SendQueryPrepared("staged", [][]byte{[]byte("one")}, nil, nil)
	pipeline.SendQueryParams("SELECT 1 / $1::int", [][]byte{[]byte("0")}, nil, nil, nil)
	t.OK(pipeline.Sync())
	pipeline.SendQueryPrepared("staged", [][]byte{[]byte("two")}, nil, nil)
	t.OK(pipeline.Sync())
	var got []string
	for len(got) < 6 {
		results, err := pipeline.GetResults()
		switch results := results.(type) {
		case *pgconn.StatementDescription:
			got = append(got, "prepared")
		case *pgconn.PipelineSync:
			got = append(got, "sync")
		case *pgconn.ResultReader:
			result := results.Read()
			if err = result.Err; err == nil {
				got = append(got, string(result.Rows[0][0]))
			}
		}
		if err != nil {
			t.SQLState(err, "22012")
			got = append(got, "error")
		}
	}
	t.Equal(got, []string{"prepared", "one", "error", "sync", "two", "sync"})
	t.OK(pipeline.Close())
}

func transactions(t *T) {
	a, b := open(t, ""), open(t, "")
	table(t, a, "pgx_transactions", "n int")
	count := func() int { return value[int](t, b, "SELECT count(*)::int FROM pgx_transactions") }
	t.OK(pgx.BeginFunc(t.Ctx, a, func(tx pgx.Tx) error {
		exec(t, tx, "INSERT INTO pgx_transactions VALUES ($1), ($2)", 1, 2)
		t.Equal(count(), 0)
		return nil
	}))
	t.Equal(count(), 2)
	no := errors.New("not this one")
	t.Equal(pgx.BeginFunc(t.Ctx, a, func(tx pgx.Tx) error {
		exec(t, tx, "INSERT INTO pgx_transactions VALUES (3)")
		return no
	}), no)
	t.Equal(count(), 2)
	tx, err := a.BeginTx(t.Ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly})
	t.OK(err)
	t.Equal(value[string](t, tx, "SHOW transaction_isolation"), "serializable")
	t.SQLState(execErr(t, tx, "INSERT INTO pgx_transactions VALUES (4)"), "25006")
	t.SQLState(execErr(t, tx, "SELECT 1"), "25P02")
	t.Equal(tx.Commit(t.Ctx), pgx.ErrTxCommitRollback)
	t.Equal(value[string](t, a, "SHOW transaction_isolation"), "read committed")
}

func savepoints(t *T) {
	a := open(t, "")
	table(t, a, "pgx_savepoints", "n int PRIMARY KEY")
	tx, err := a.Begin(t.Ctx)
	t.OK(err)
	exec(t, tx, "INSERT INTO pgx_savepoints VALUES (1)")
	inner, err := tx.Begin(t.Ctx)
	t.OK(err)
	t.SQLState(execErr(t, inner, "INSERT INTO pgx_savepoints VALUES ($1)", 1), "23505")
	t.OK(inner.Rollback(t.Ctx))
	inner, err = tx.Begin(t.Ctx)
	t.OK(err)
	exec(t, inner, "INSERT INTO pgx_savepoints VALUES (2)")
	t.OK(inner.Commit(t.Ctx))
	t.OK(tx.Commit(t.Ctx))
	t.Equal(value[[]int](t, a, "SELECT array_agg(n ORDER BY n) FROM pgx_savepoints"), []int{1, 2})
}

func copying(t *T) {
	a := open(t, "")
	table(t, a, "pgx_copy", "n int, t text")
	rows := make([][]any, 20_000)
	for n := range rows {
		rows[n] = []any{n, fmt.Sprint("row ", n)}
	}
	count, err := a.CopyFrom(t.Ctx, pgx.Identifier{"pgx_copy"}, []string{"n", "t"}, pgx.CopyFromRows(rows))
	t.OK(err)
	t.Equal(count, int64(len(rows)))
	var out bytes.Buffer
	_, err = a.PgConn().CopyTo(t.Ctx, &out, "COPY pgx_copy TO STDOUT")
	t.OK(err)
	lines := strings.Split(out.String(), "\n")
	t.Equal([]any{len(lines), lines[19_999]}, []any{20_001, "19999\trow 19999"})
	_, err = a.PgConn().CopyFrom(t.Ctx, strings.NewReader("one\ttwo\n"), "COPY pgx_copy FROM STDIN")
	t.SQLState(err, "22P02")
	_, err = a.PgConn().CopyFrom(t.Ctx, brokenReader{}, "COPY pgx_copy FROM STDIN")
	t.Equal(err != nil, true)
	t.Equal(value[int](t, a, "SELECT count(*)::int FROM pgx_copy"), 20_000)
}

// brokenReader makes the driver give a COPY up.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("no more") }

func cancel(t *T) {
	a, b := open(t, ""), open(t, "")
	sleeping := func() bool {
		return value[int](t, b, "SELECT count(*)::int FROM pg_stat_activity"+
			" WHERE query LIKE '%pg_sleep(15) AS pgx' AND wait_event = 'PgSleep'") > 0
	}
	ended := make(chan error, 1)
	go func() { ended <- failing(t, a, "SELECT pg_sleep(15) AS pgx") }()
	for !sleeping() {
	}
	t.OK(a.PgConn().CancelRequest(t.Ctx))
	t.SQLState(<-ended, "57014")
	t.Equal(value[int](t, a, "SELECT 1"), 1)

	// A context that ends has the driver cancel the query, and give the connection up.
	ctx, giveUp := context.WithCancel(t.Ctx)
	go func() { ended <- execOn(ctx, a, "SELECT pg_sleep(15) AS pgx") }()
	for !sleeping() {
	}
	giveUp()
	t.Equal(errors.Is(<-ended, context.Canceled), true)
	for sleeping() {
	}
}

func execOn(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.Exec(ctx, sql)
	return err
}

func notices(t *T) {
	config, err := pgx.ParseConfig("")
	t.OK(err)
	var seen []string
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		seen = append(seen, notice.Severity+" "+notice.Message+" "+notice.Code)
	}
	a, err := pgx.ConnectConfig(t.Ctx, config)
	t.OK(err)
	defer a.Close(t.Ctx)
	exec(t, a, "DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$")
	t.Equal(seen, []string{"NOTICE hear me 00000", "WARNING and this 01000"})
}

func largeRows(t *T) {
	a := open(t, "")
	t.Equal(value[string](t, a, "SELECT repeat('0123456789', 500000)"), strings.Repeat("0123456789", 500_000))
	rows, err := a.Query(t.Ctx, "SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n")
	t.OK(err)
	var n, sum int
	var hash string
	_, err = pgx.ForEachRow(rows, []any{&n, &hash}, func() error { sum += n; return nil })
	t.OK(err)
	t.Equal(sum, 1_250_025_000)
	rows, err = a.Query(t.Ctx, "SELECT n FROM generate_series(1, 50000) AS n")
	t.OK(err)
	t.Equal(rows.Next(), true) // the other rows are left unread
	rows.Close()
	t.OK(pgx.BeginFunc(t.Ctx, a, func(tx pgx.Tx) error {
		exec(t, tx, "DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 5000) AS n")
		sum = 0
		for {
			rows, err := tx.Query(t.Ctx, "FETCH 700 FROM c")
			t.OK(err)
			part, err := pgx.CollectRows(rows, pgx.RowTo[int])
			t.OK(err)
			if len(part) == 0 {
				return nil
			}
			for _, n := range part {
				sum += n
			}
		}
	}))
	t.Equal(sum, 12_502_500)
}

func reconnect(t *T) {
	a, b := open(t, ""), open(t, "")
	tx, err := a.Begin(t.Ctx)
	t.OK(err)
	pid := value[int](t, tx, "SELECT pg_backend_pid()")
	t.Equal(value[bool](t, b, "SELECT pg_terminate_backend($1, 5000)", pid), true)
	t.Lost(execErr(t, tx, "SELECT 1"))
	t.Equal(a.IsClosed(), true)
	t.Equal(value[int](t, open(t, ""), "SELECT 1"), 1)
	t.Equal(value[int](t, b, "SELECT 2"), 2)
}

func main() {
	checklist.Run(map[string]checklist.Cell{
		"connect":           connect,
		"types":             types,
		"parameters":        parameters,
		"prepared":          prepared,
		"pipelining":        pipelining,
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
