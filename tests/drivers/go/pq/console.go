package main

// console uses the admin console: with the simple protocol, and with the extended one where there are parameters.
func console(t *T) {
	db := pool(t, "")
	t.OK(db.PingContext(t.Ctx))
	for range 3 {
		t.Equal(value[string](t, db, "SHOW TIMEZONE"), "GMT")
		var name, state string
		t.OK(db.QueryRowContext(t.Ctx, "SHOW STATE").Scan(&name, &state))
		t.Equal(name+state, "activeyes")
	}
	exec(t, db, "SET query_wait_timeout = $1", 78)
	t.SQLState(execErr(t, db, "PAUSE $1", "nothing"), "08P01")
	prepared, err := db.PrepareContext(t.Ctx, "SHOW LISTS")
	t.OK(err)
	defer prepared.Close()
	for range 3 {
		var name string
		var items int
		t.OK(prepared.QueryRowContext(t.Ctx).Scan(&name, &items))
		t.Equal([]any{name, items}, []any{"databases", 2})
	}
	tx, err := db.BeginTx(t.Ctx, nil)
	t.OK(err)
	exec(t, tx, "RECONNECT")
	t.OK(tx.Commit())
}
