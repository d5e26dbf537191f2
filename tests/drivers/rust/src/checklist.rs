//! What the cells are made of: they run one after the other, one line for each.

use std::env;
use std::error::Error;
use std::fmt::Debug;
use std::io::stdin;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};

pub type Failure = Box<dyn Error>;
pub type Outcome<T = ()> = Result<T, Failure>;

/// A running cell; its text, if any, is a note that is printed before its line.
type Running = Pin<Box<dyn Future<Output = Outcome<Option<String>>>>>;

/// What a cell may return.
pub trait Noted {
    fn note(self) -> Option<String>;
}

impl Noted for () {
    fn note(self) -> Option<String> {
        None
    }
}

impl Noted for Option<String> {
    fn note(self) -> Option<String> {
        self
    }
}

/// A check under its name.
pub struct Cell {
    name: &'static str,
    run: Box<dyn Fn() -> Running>,
}

pub fn cell<B, F, N>(name: &'static str, body: B) -> Cell
where
    B: Fn() -> F + 'static,
    F: Future<Output = Outcome<N>> + 'static,
    N: Noted,
{
    let run = move || -> Running {
        let running = body();
        Box::pin(async { running.await.map(Noted::note) })
    };
    Cell { name, run: Box::new(run) }
}

pub type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How long one cell may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Where to connect to: PGHOST, PGPORT, ...
pub fn config() -> Config {
    let variable = |name| env::var(name).expect(name);
    let mut config = Config::new();
    config
        .host(variable("PGHOST"))
        .port(variable("PGPORT").parse().expect("PGPORT is a number"))
        .user(variable("PGUSER"))
        .password(variable("PGPASSWORD"))
        .dbname(variable("PGDATABASE"));
    config
}

pub fn user() -> String {
    env::var("PGUSER").expect("PGUSER")
}

pub async fn open() -> Outcome<Client> {
    let (client, connection) = config().connect(NoTls).await?;
    // What ends the connection ends its queries too, with the same error.
    tokio::spawn(async { connection.await.ok() });
    Ok(client)
}

/// A client, and what the server says without being asked.
pub async fn open_listening() -> Outcome<(Client, mpsc::UnboundedReceiver<AsyncMessage>)> {
    let (client, mut connection): (_, Connection<Socket, NoTlsStream>) =
        config().connect(NoTls).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            sender.send(message).ok();
        }
    });
    Ok((client, receiver))
}

/// The only column of the only row.
pub async fn value<T: FromSqlOwned>(
    client: &Client,
    sql: &str,
    parameters: Parameters<'_>,
) -> Outcome<T> {
    Ok(client.query_one(sql, parameters).await?.try_get(0)?)
}

pub fn same<T: PartialEq<U> + Debug, U: Debug>(got: T, expected: U) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{expected:?} expected, not {got:?}").into()) }
}

/// Checks that it failed with this SQLSTATE.
pub fn failed<T: Debug>(result: Result<T, tokio_postgres::Error>, code: &str) -> Outcome {
    match result {
        Err(error) if error.code().is_some_and(|state| state.code() == code) => Ok(()),
        other => Err(format!("{code} expected, not {other:?}").into()),
    }
}

pub async fn table(client: &Client, name: &str, columns: &str) -> Outcome {
    let sql = format!("DROP TABLE IF EXISTS {name}; CREATE TABLE {name} ({columns})");
    Ok(client.batch_execute(&sql).await?)
}

/// Runs a check on all clients, again and again, in transactions of their own.
///
/// In each round another one holds a transaction open meanwhile. So behind a pooler in transaction
/// mode all get other servers than in the round before. The check gets the number of its client and
/// of the round.
pub async fn alternate<C>(clients: &[&Client], rounds: usize, check: C) -> Outcome
where
    C: AsyncFn(&Client, usize, usize) -> Outcome,
{
    for round in 0..rounds {
        let holder = round % clients.len();
        clients[holder].batch_execute("BEGIN").await?;
        check(clients[holder], holder, round).await?;
        for (number, other) in clients.iter().enumerate() {
            if number != holder {
                check(other, number, round).await?;
            }
        }
        clients[holder].batch_execute("COMMIT").await?;
    }
    Ok(())
}

fn reason(error: &dyn Error) -> String {
    let mut chain = vec![error.to_string()];
    let mut link = error.source();
    while let Some(cause) = link {
        chain.push(cause.to_string());
        link = cause.source();
    }
    chain.join("; ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The cells named on the command line, or, with `-`, on standard input line by line, or all.
fn chosen(cells: &[Cell]) -> Box<dyn Iterator<Item = &Cell> + '_> {
    let named: Vec<String> = env::args().skip(1).collect();
    let find = |name: String| cells.iter().find(|cell| cell.name == name).expect("a cell's name");
    match named.first().map(String::as_str) {
        None => Box::new(cells.iter()),
        Some("-") => Box::new(stdin().lines().map(move |line| find(line.expect("a line")))),
        Some(_) => Box::new(named.into_iter().map(find)),
    }
}

/// Runs the chosen cells; whether none of them failed.
pub async fn run(cells: &[Cell]) -> bool {
    let mut good = true;
    for Cell { name, run } in chosen(cells) {
        match tokio::time::timeout(LIMIT, run()).await {
            Ok(Ok(None)) => println!("ok {name}"),
            Ok(Ok(Some(note))) => println!("# {name}: {note}\nok {name}"),
            Ok(Err(error)) => {
                good = false;
                println!("fail {name}: {}", reason(error.as_ref()));
            }
            Err(_) => {
                good = false;
                println!("fail {name}: nothing within {LIMIT:?}");
            }
        }
    }
    good
}
