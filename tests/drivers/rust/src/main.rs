//! The checklist with tokio-postgres, settings as they are; where to connect to is in PGHOST, PGPORT, ...

mod checklist;
mod state;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use tokio_postgres::{AsyncMessage, IsolationLevel, NoTls};

use checklist::{
    Outcome, alternate, cell, config, failed, open, open_listening, same, table, user, value,
};

async fn connect() -> Outcome {
    let (client, connection) =
        config().application_name("rust tokio-postgres").connect(NoTls).await?;
    same(connection.parameter("client_encoding"), Some("UTF8"))?;
    tokio::spawn(connection);
    same(value::<String>(&client, "SELECT current_user::text", &[]).await?, user())?;
    same(value::<String>(&client, "SHOW application_name", &[]).await?, "rust tokio-postgres")?;
    client.check_connection().await?;
    let refused = config().password("wrong").connect(NoTls).await;
    failed(refused.map(|_| ()), "28P01")
}

fn moment() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_709_208_000_123)
}

async fn types() -> Outcome {
    let a = open().await?;
    let sql = "SELECT 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, true, 'zwölf €'::text,
        '\\x00ff'::bytea, '2024-02-29 12:00:00.123+00'::timestamptz, ARRAY[1, NULL, 3],
        ARRAY['a', 'b\"c', NULL], NULL::int";
    let row = a.query_one(sql, &[]).await?;
    same(row.try_get::<_, i16>(0)?, 1)?;
    same(row.try_get::<_, i32>(1)?, 2)?;
    same(row.try_get::<_, i64>(2)?, 9_007_199_254_740_993)?;
    same(row.try_get::<_, f64>(3)?, 1.5)?;
    same(row.try_get::<_, bool>(4)?, true)?;
    same(row.try_get::<_, &str>(5)?, "zwölf €")?;
    same(row.try_get::<_, &[u8]>(6)?, [0, 255])?;
    same(row.try_get::<_, SystemTime>(7)?, moment())?;
    same(row.try_get::<_, Vec<Option<i32>>>(8)?, [Some(1), None, Some(3)])?;
    same(row.try_get::<_, Vec<Option<&str>>>(9)?, [Some("a"), Some("b\"c"), None])?;
    same(row.try_get::<_, Option<i32>>(10)?, None)?;
    // The driver asks the catalogue about a type that it does not know.
    a.batch_execute(
        "DROP TYPE IF EXISTS tokio_mood; CREATE TYPE tokio_mood AS ENUM ('glad', 'sad')",
    )
    .await?;
    let row = a.query_one("SELECT 'sad'::tokio_mood, '[1,3)'::int4range", &[]).await?;
    same(row.columns()[0].type_().name(), "tokio_mood")?;
    drop(row);
    a.batch_execute("DROP TYPE tokio_mood").await?;
    Ok(())
}

async fn parameters() -> Outcome {
    let a = open().await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let sql = "SELECT $1::int, $2::text, $3::bytea, $4::timestamptz, $5::int[], $6::text, $7::bool";
    let ints = [Some(1), None, Some(3)].as_slice();
    let none: Option<&str> = None;
    let row = a.query_one(sql, &[&7, &"it's", &bytes, &moment(), &ints, &none, &false]).await?;
    same(row.try_get::<_, i32>(0)?, 7)?;
    same(row.try_get::<_, &str>(1)?, "it's")?;
    same(row.try_get::<_, &[u8]>(2)?, bytes)?;
    same(row.try_get::<_, SystemTime>(3)?, moment())?;
    same(row.try_get::<_, Vec<Option<i32>>>(4)?, ints)?;
    same(row.try_get::<_, Option<&str>>(5)?, None)?;
    same(row.try_get::<_, bool>(6)?, false)?;
    let long = "é".repeat(500_000);
    same(value::<String>(&a, "SELECT $1::text", &[&long]).await? == long, true)?;
    let many: Vec<i32> = (0..1000).collect();
    let sum: Vec<String> = many.iter().map(|n| format!("${}::int", n + 1)).collect();
    let all: Vec<_> =
        many.iter().map(|n| n as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
    same(value::<i32>(&a, &format!("SELECT {}", sum.join(" + ")), &all).await?, 499_500)?;
    failed(a.query("SELECT $1::text::int", &[&"seven"]).await, "22P02")?;
    same(value::<i32>(&a, "SELECT $1::int", &[&8]).await?, 8)
}

async fn prepared() -> Outcome<Option<String>> {
    let (a, b, c) = (open().await?, open().await?, open().await?);
    let clients = [&a, &b, &c];
    let mut own = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        own.push(client.prepare(&format!("SELECT $1::int + {number}, pg_backend_pid()")).await?);
    }
    let servers = Mutex::new(vec![HashSet::new(); clients.len()]);
    alternate(&clients, 30, async |client, number, round| {
        let me = i32::try_from(number * 1000 + round)?;
        let row = client.query_one(&own[number], &[&me]).await?;
        same(row.try_get::<_, i32>(0)?, me + i32::try_from(number)?)?;
        servers.lock().unwrap()[number].insert(row.try_get::<_, i32>(1)?);
        // Prepared, executed and closed.
        same(value::<String>(client, "SELECT $1::text", &[&"x"]).await?, "x")?;
        let seven = format!("SELECT {}", round % 7);
        same(value::<i32>(client, &seven, &[]).await?, i32::try_from(round % 7)?)?;
        let typed = [(&me as _, tokio_postgres::types::Type::INT4)];
        same(client.query_typed("SELECT $1", &typed).await?[0].try_get::<_, i32>(0)?, me)
    })
    .await?;
    let quotient = a.prepare("SELECT 12 / $1::int").await?;
    failed(a.query(&quotient, &[&0]).await, "22012")?;
    same(a.query_one(&quotient, &[&4]).await?.try_get::<_, i32>(0)?, 3)?;
    failed(a.prepare("SELECT nothing_of_this_name").await.map(|_| ()), "42703")?;

    let squares = (0..8).map(async |first: i32| -> Outcome {
        let client = open().await?;
        let square = client.prepare("SELECT $1::int * $1::int").await?;
        for n in first..first + 25 {
            same(client.query_one(&square, &[&n]).await?.try_get::<_, i32>(0)?, n * n)?;
        }
        Ok(())
    });
    try_join_all(squares).await?;
    let met = servers.lock().unwrap().iter().map(HashSet::len).max();
    Ok(met.map(|count| format!("a connection has met {count} servers")))
}

/// What is asked before the answer to something else has come is sent at once.
async fn pipelining() -> Outcome {
    let (a, b) = (open().await?, open().await?);
    let round = async |client: &tokio_postgres::Client| -> Outcome {
        let same_text = client.prepare("SELECT $1::int").await?;
        let numbers: Vec<i32> = (0..50).collect();
        let rows = numbers
            .iter()
            .map(async |n| client.query_one(&same_text, &[n]).await?.try_get::<_, i32>(0));
        let texts = numbers.iter().map(async |n| {
            client.query_one(&format!("SELECT {n}"), &[]).await?.try_get::<_, i32>(0)
        });
        let bad = client.query("SELECT 1 / $1::int", &[&0]);
        let simple = client.simple_query("SELECT 1; SELECT 2");
        let (rows, texts, bad, simple) =
            tokio::join!(try_join_all(rows), try_join_all(texts), bad, simple);
        same(rows?, numbers.clone())?;
        same(texts?, numbers.clone())?;
        failed(bad, "22012")?;
        // Two times a description, a row and the end.
        same(simple?.len(), 6)?;
        let all = [
            client.batch_execute("BEGIN"),
            client.batch_execute("SELECT nothing_of_this_name"),
            client.batch_execute("SELECT 1"),
            client.batch_execute("COMMIT"),
        ];
        let got: Vec<_> = join_all(all).await.into_iter().map(|result| result.is_ok()).collect();
        same(got, [true, false, false, true])
    };
    for _ in 0..3 {
        tokio::try_join!(round(&a), round(&b))?;
    }
    Ok(())
}

async fn transactions() -> Outcome {
    let (mut a, b) = (open().await?, open().await?);
    table(&a, "tokio_transactions", "n int").await?;
    let count = async || value::<i64>(&b, "SELECT count(*) FROM tokio_transactions", &[]).await;
    let transaction = a.transaction().await?;
    transaction.execute("INSERT INTO tokio_transactions VALUES ($1), ($2)", &[&1, &2]).await?;
    same(count().await?, 0)?;
    transaction.commit().await?;
    same(count().await?, 2)?;
    let transaction = a.transaction().await?;
    transaction.execute("INSERT INTO tokio_transactions VALUES (3)", &[]).await?;
    drop(transaction); // it is rolled back
    same(count().await?, 2)?;
    let serializable = IsolationLevel::Serializable;
    let transaction =
        a.build_transaction().isolation_level(serializable).read_only(true).start().await?;
    let level = transaction.query_one("SHOW transaction_isolation", &[]).await?;
    same(level.try_get::<_, &str>(0)?, "serializable")?;
    let refused = transaction.execute("INSERT INTO tokio_transactions VALUES (4)", &[]).await;
    failed(refused, "25006")?;
    failed(transaction.execute("SELECT 1", &[]).await, "25P02")?;
    transaction.commit().await?;
    same(value::<String>(&a, "SHOW transaction_isolation", &[]).await?, "read committed")?;
    same(count().await?, 2)?;
    Ok(a.batch_execute("DROP TABLE tokio_transactions").await?)
}

async fn savepoints() -> Outcome {
    let mut a = open().await?;
    table(&a, "tokio_savepoints", "n int PRIMARY KEY").await?;
    let mut outer = a.transaction().await?;
    outer.execute("INSERT INTO tokio_savepoints VALUES (1)", &[]).await?;
    let inner = outer.transaction().await?;
    let twice = inner.execute("INSERT INTO tokio_savepoints VALUES ($1)", &[&1]).await;
    failed(twice, "23505")?;
    inner.rollback().await?;
    let inner = outer.savepoint("two").await?;
    inner.execute("INSERT INTO tokio_savepoints VALUES (2)", &[]).await?;
    inner.commit().await?;
    outer.commit().await?;
    let all = "SELECT array_agg(n ORDER BY n) FROM tokio_savepoints";
    same(value::<Vec<i32>>(&a, all, &[]).await?, [1, 2])?;
    Ok(a.batch_execute("DROP TABLE tokio_savepoints").await?)
}

async fn copy() -> Outcome {
    let a = open().await?;
    table(&a, "tokio_copy", "n int, t text").await?;
    let count = async || value::<i64>(&a, "SELECT count(*) FROM tokio_copy", &[]).await;
    let lines: Vec<String> = (0..20_000).map(|n| format!("{n}\trow {n}\n")).collect();
    let sink = a.copy_in::<_, Bytes>("COPY tokio_copy FROM STDIN").await?;
    pin_mut!(sink);
    for line in &lines {
        sink.feed(Bytes::from(line.clone())).await?;
    }
    same(sink.finish().await?, 20_000)?;
    let parts: Vec<Bytes> = a.copy_out("COPY tokio_copy TO STDOUT").await?.try_collect().await?;
    same(parts.concat() == lines.concat().as_bytes(), true)?;

    let bad = a.copy_in::<_, Bytes>("COPY tokio_copy FROM STDIN").await?;
    pin_mut!(bad);
    bad.send("one\ttwo\n".into()).await?;
    failed(bad.finish().await, "22P02")?;
    let half = a.copy_in::<_, Bytes>("COPY tokio_copy FROM STDIN").await?;
    let mut half = Box::pin(half);
    half.send("1\tone\n".into()).await?;
    drop(half); // given up
    same(count().await?, 20_000)?;
    Ok(a.batch_execute("DROP TABLE tokio_copy").await?)
}

async fn cancel() -> Outcome {
    let (a, b) = (open().await?, open().await?);
    let token = a.cancel_token();
    let sleeping = "SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE '%pg_sleep(15) AS tokio' AND wait_event = 'PgSleep'";
    let slow = a.batch_execute("SELECT pg_sleep(15) AS tokio");
    let stop = async {
        while value::<i64>(&b, sleeping, &[]).await? == 0 {}
        Ok::<_, checklist::Failure>(token.cancel_query(NoTls).await?)
    };
    let (slow, stop) = tokio::join!(slow, stop);
    stop?;
    failed(slow, "57014")?;
    same(value::<i32>(&a, "SELECT 1", &[]).await?, 1)
}

async fn notices() -> Outcome {
    let (a, mut said) = open_listening().await?;
    let block = "DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$";
    a.batch_execute(block).await?;
    for expected in ["NOTICE hear me 00000", "WARNING and this 01000"] {
        match said.recv().await {
            Some(AsyncMessage::Notice(notice)) => {
                let code = notice.code().code();
                let got = format!("{} {} {code}", notice.severity(), notice.message());
                same(got, expected)?;
            }
            other => return Err(format!("a notice expected, not {other:?}").into()),
        }
    }
    Ok(())
}

async fn large_rows() -> Outcome {
    let mut a = open().await?;
    let large: String = value(&a, "SELECT repeat('0123456789', 500000)", &[]).await?;
    same(large == "0123456789".repeat(500_000), true)?;
    let many = "SELECT n, md5(n::text) FROM generate_series(1, $1::int) AS n";
    let rows = a.query(many, &[&50_000]).await?;
    let sum: i64 = rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum();
    same(sum, 1_250_025_000)?;
    let mut rows = Box::pin(a.query_raw(many, [50_000]).await?);
    same(rows.next().await.transpose()?.is_some(), true)?;
    drop(rows); // the others are left unread

    let transaction = a.transaction().await?;
    let portal = transaction.bind("SELECT n FROM generate_series(1, 5000) AS n", &[]).await?;
    let mut sum = 0;
    loop {
        let part = transaction.query_portal(&portal, 700).await?;
        if part.is_empty() {
            break;
        }
        sum += part.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
    }
    transaction.commit().await?;
    same(sum, 12_502_500)
}

async fn reconnect() -> Outcome {
    let (mut a, b) = (open().await?, open().await?);
    let transaction = a.transaction().await?;
    let pid: i32 = transaction.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
    let end = "SELECT pg_terminate_backend($1, 5000)";
    same(value::<bool>(&b, end, &[&pid]).await?, true)?;
    let error = transaction.execute("SELECT 1", &[]).await.err().ok_or("no error")?;
    let code = error.code().map(|state| state.code().to_owned());
    let lost = code.is_some_and(|code| code == "57P01" || code.starts_with("08"));
    if !lost && !error.is_closed() {
        return Err(error.into());
    }
    drop(transaction);
    same(value::<i32>(&open().await?, "SELECT 1", &[]).await?, 1)?;
    same(value::<i32>(&b, "SELECT 2", &[]).await?, 2)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cells = [
        cell("connect", connect),
        cell("types", types),
        cell("parameters", parameters),
        cell("prepared", prepared),
        cell("pipelining", pipelining),
        cell("transactions", transactions),
        cell("savepoints", savepoints),
        cell("copy", copy),
        cell("cancel", cancel),
        cell("statement_timeout", state::statement_timeout),
        cell("notices", notices),
        cell("large_rows", large_rows),
        cell("reconnect", reconnect),
        cell("temporary_tables", state::temporary_tables),
        cell("settings", state::settings),
        cell("role", state::role),
        cell("listen", state::listen),
        cell("advisory_locks", state::advisory_locks),
    ];
    if checklist::run(&cells).await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
