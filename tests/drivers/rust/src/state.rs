//! What a session keeps: it must be there in later transactions, and nobody else may have it.

use std::time::Duration;

use tokio_postgres::{AsyncMessage, Client};

use crate::checklist::{Outcome, alternate, failed, open, open_listening, same, user, value};

pub async fn statement_timeout() -> Outcome {
    let (a, b) = (open().await?, open().await?);
    a.batch_execute("SET statement_timeout = '150ms'").await?;
    alternate(&[&a, &b], 4, async |client, number, _| {
        let shown: String = value(client, "SHOW statement_timeout", &[]).await?;
        same(shown, ["150ms", "0"][number])
    })
    .await?;
    b.batch_execute("BEGIN; SELECT 1").await?;
    failed(a.execute("SELECT pg_sleep(15)", &[]).await, "57014")?;
    b.batch_execute("COMMIT").await?;
    a.batch_execute("BEGIN").await?;
    failed(a.execute("SELECT pg_sleep($1)", &[&15.0]).await, "57014")?;
    a.batch_execute("ROLLBACK; RESET statement_timeout").await?;
    same(value::<String>(&a, "SHOW statement_timeout", &[]).await?, "0")
}

pub async fn temporary_tables() -> Outcome {
    let (a, b, c) = (open().await?, open().await?, open().await?);
    a.batch_execute("CREATE TEMPORARY TABLE tokio_temporary (n int)").await?;
    b.batch_execute("CREATE TEMPORARY TABLE tokio_temporary (n int)").await?;
    alternate(&[&a, &b, &c], 6, async |client, number, round| {
        if number == 2 {
            let there = "SELECT to_regclass('tokio_temporary') IS NOT NULL";
            return same(value::<bool>(client, there, &[]).await?, false);
        }
        let step = [1, 100][number];
        client.execute("INSERT INTO tokio_temporary VALUES ($1)", &[&step]).await?;
        let sum: i64 = value(client, "SELECT sum(n) FROM tokio_temporary", &[]).await?;
        same(sum, i64::from(step) * i64::try_from(round + 1)?)
    })
    .await?;
    a.batch_execute("DROP TABLE tokio_temporary").await?;
    Ok(b.batch_execute("DROP TABLE tokio_temporary").await?)
}

async fn shown(client: &Client) -> Outcome<String> {
    let sql = "SELECT concat_ws(' ', current_setting('search_path'), current_setting('timezone'),
        current_setting('application_name'))";
    value(client, sql, &[]).await
}

pub async fn settings() -> Outcome {
    let (mut a, mut b, c) = (open().await?, open().await?, open().await?);
    let mut expected =
        vec!["pg_catalog Asia/Tokyo first".to_owned(), "public America/Lima second".to_owned()];
    for (client, own) in [&mut a, &mut b].into_iter().zip(&expected) {
        let [path, zone, name] = own.split(' ').collect::<Vec<_>>()[..] else {
            return Err("three settings expected".into());
        };
        let transaction = client.transaction().await?;
        let set = format!("SET search_path TO {path}; SET TIME ZONE '{zone}'");
        transaction.batch_execute(&set).await?;
        let config = "SELECT set_config('application_name', $1, false)";
        transaction.execute(config, &[&name]).await?;
        transaction.commit().await?;
    }
    c.batch_execute("SET application_name = 'third'").await?;
    expected.push(shown(&c).await?);
    same(expected[2].ends_with(" third"), true)?;
    alternate(&[&a, &b, &c], 9, async |client, number, _| {
        same(shown(client).await?, expected[number].as_str())
    })
    .await
}

pub async fn role() -> Outcome {
    let (a, b) = (open().await?, open().await?);
    let expected = ["pg_read_all_stats".to_owned(), user()];
    a.batch_execute("SET ROLE pg_read_all_stats").await?;
    alternate(&[&a, &b], 4, async |client, number, _| {
        let who: String = value(client, "SELECT current_user::text", &[]).await?;
        same(who, expected[number].as_str())
    })
    .await?;
    a.batch_execute("RESET ROLE").await?;
    same(value::<String>(&a, "SELECT current_user::text", &[]).await?, user())
}

pub async fn listen() -> Outcome {
    let (a, mut said) = open_listening().await?;
    let b = open().await?;
    a.batch_execute("LISTEN tokio").await?;
    for payload in ["one", "zwölf"] {
        b.execute("SELECT pg_notify($1, $2)", &[&"tokio", &payload]).await?;
        match tokio::time::timeout(Duration::from_secs(5), said.recv()).await? {
            Some(AsyncMessage::Notification(heard)) => {
                same((heard.channel(), heard.payload()), ("tokio", payload))?;
            }
            other => return Err(format!("a notification expected, not {other:?}").into()),
        }
        same(value::<i32>(&a, "SELECT 1", &[]).await?, 1)?;
    }
    Ok(a.batch_execute("UNLISTEN tokio").await?)
}

pub async fn advisory_locks() -> Outcome {
    let key = i64::from(std::process::id());
    let (a, b) = (open().await?, open().await?);
    let ask = async |client: &Client, function: &str| {
        value::<bool>(client, &format!("SELECT pg_{function}($1)"), &[&key]).await
    };
    a.execute("SELECT pg_advisory_lock($1)", &[&key]).await?;
    alternate(&[&a, &b], 4, async |client, number, _| {
        same(ask(client, "try_advisory_lock").await?, number == 0)?;
        if number == 0 {
            same(ask(client, "advisory_unlock").await?, true)?; // once for each time it was taken
        }
        Ok(())
    })
    .await?;
    same(ask(&a, "advisory_unlock").await?, true)?;
    same(ask(&b, "try_advisory_lock").await?, true)?;
    same(ask(&b, "advisory_unlock").await?, true)
}
