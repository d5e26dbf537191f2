// The checklist with Postgres.js (postgres), settings as they are; where to connect to is in PGHOST, PGPORT, ...

import assert from 'node:assert/strict';
import { finished, pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';

import postgres from 'postgres';

import { alternate, fails, losesConnection, run, within } from './checklist.mjs';

/** A `sql` with one connection, and the few calls that `alternate` needs. */
class Session {
  constructor(options) {
    this.sql = postgres({ max: 1, onnotice: () => {}, ...options });
  }

  static open(register, options) {
    return register(new Session(options));
  }

  get query() {
    return this.sql;
  }

  async value(...template) {
    const [row] = await this.sql(...template);
    return Object.values(row)[0];
  }

  transaction(body) {
    return this.sql.begin(body);
  }

  close() {
    return this.sql.end({ timeout: 1 });
  }
}

async function table(session, name, columns) {
  await session.sql.unsafe(`DROP TABLE IF EXISTS ${name}`);
  await session.sql.unsafe(`CREATE TABLE ${name} (${columns})`);
}

async function connect(register) {
  const { sql } = Session.open(register, { connection: { application_name: 'node postgres.js' } });
  const rows = await sql`SELECT current_user AS who, current_setting('application_name') AS what`;
  assert.deepEqual([...rows], [{ who: process.env.PGUSER, what: 'node postgres.js' }]);
  const stranger = Session.open(register, { password: 'wrong' });
  await fails('28P01', stranger.sql`SELECT 1`);
}

async function types(register) {
  const { sql } = Session.open(register);
  const [row] = await sql`SELECT 1::int2 AS small, 2::int4 AS int, 9007199254740993::int8 AS big,
    1.5::float8 AS float, 12.340::numeric AS numeric, true AS bool, 'zwölf €'::text AS text,
    '\\x00ff'::bytea AS bytes, '2024-02-29 12:00:00.123+00'::timestamptz AS moment,
    'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid AS uuid, '{"a": [1, null]}'::jsonb AS json,
    ARRAY[1, 3] AS ints, ARRAY['a', 'b"c'] AS texts, NULL::int AS nothing`; // it knows no NULL in an array
  assert.deepEqual(row, {
    small: 1, int: 2, big: '9007199254740993', float: 1.5, numeric: '12.340', bool: true, text: 'zwölf €',
    bytes: Buffer.from([0, 255]), moment: new Date('2024-02-29T12:00:00.123Z'),
    uuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6', json: { a: [1, null] },
    ints: [1, 3], texts: ['a', 'b"c'], nothing: null,
  });
}

async function parameters(register) {
  const a = Session.open(register);
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  const moment = new Date('2024-02-29T12:00:00.123Z');
  const [row] = await a.sql`SELECT ${7}::int AS a, ${"it's"}::text AS b, ${bytes}::bytea AS c,
    ${moment}::timestamptz AS d, ${a.sql.json({ x: 1 })}::jsonb AS e, ${[1, 3]}::int[] AS f,
    ${null}::text AS g, ${false}::bool AS h`;
  assert.deepEqual(row, {
    a: 7, b: "it's", c: bytes, d: moment, e: { x: 1 }, f: [1, 3], g: null, h: false,
  });
  const long = 'é'.repeat(500_000);
  assert.equal(await a.value`SELECT ${long}::text`, long);
  const many = Array.from({ length: 1000 }, (_, n) => n);
  const [{ count }] = await a.sql`SELECT count(*)::int FROM generate_series(0, 1500) AS n WHERE n IN ${a.sql(many)}`;
  assert.equal(count, 1000);
  await fails('22P02', a.sql`SELECT ${'seven'}::int`);
  assert.equal(await a.value`SELECT ${8}::int`, 8);
}

async function prepared(register) {
  const sessions = [0, 1, 2].map(() => Session.open(register));
  const servers = new Map(sessions.map((session) => [session, new Set()]));
  await alternate(sessions, 30, async (session, query, round) => {
    const me = sessions.indexOf(session) * 1000 + round;
    const [row] = await query`SELECT ${me}::int AS n, pg_backend_pid() AS pid`;
    assert.equal(row.n, me);
    servers.get(session).add(row.pid);
    assert.deepEqual([...await query`SELECT ${`t${me}`}::text AS t`], [{ t: `t${me}` }]);
    assert.deepEqual([...await query.unsafe('SELECT $1::int AS once', [me])], [{ once: me }]);
    assert.deepEqual([...await query`SELECT 5 AS n`.simple()], [{ n: 5 }]);
    assert.deepEqual([...await query.unsafe(`SELECT ${round % 7} AS n`, [], { prepare: true })], [{ n: round % 7 }]);
  });
  const { sql } = sessions[0];
  const quotient = (n) => sql`SELECT 12 / ${n}::int AS q`;
  await quotient(3);
  await fails('22012', quotient(0));
  assert.deepEqual([...await quotient(4)], [{ q: 3 }]);

  const pool = Session.open(register, { max: 10 });
  const square = (n) => pool.value`SELECT ${n}::int * ${n}::int AS s`;
  const results = await Promise.all(Array.from({ length: 200 }, (_, n) => square(n)));
  assert.deepEqual(results, results.map((_, n) => n * n));
  return `a connection has met ${Math.max(...[...servers.values()].map((pids) => pids.size))} servers`;
}

async function pipelining(register) {
  // Queries of one connection are written ahead of the answers, as many as there are (`max_pipeline`).
  const sessions = [Session.open(register), Session.open(register)];
  for (let round = 0; round < 5; round++) {
    const ask = ({ sql }) => [
      sql`SELECT 1 AS n`,
      ...[2, 3].map((n) => sql`SELECT ${n}::int AS n`),
      sql`SELECT 1 / ${0}::int AS n`,
      ...[4, 5].map((n) => sql`SELECT ${n}::int AS n`),
      sql`SELECT 6 AS n`.simple(),
      sql.begin((inner) => [inner`SELECT ${7}::int AS n`, inner`SELECT ${8}::int AS n`]),
    ];
    for (const results of await Promise.all(sessions.map((session) => Promise.allSettled(ask(session))))) {
      const got = results.map(({ value, reason }) => reason?.code ?? value.flat().map((row) => row.n).join());
      assert.deepEqual(got, ['1', '2', '3', '22012', '4', '5', '6', '7,8']);
    }
  }
}

async function transactions(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  await table(a, 'postgresjs_transactions', 'n int');
  const count = () => b.value`SELECT count(*)::int FROM postgresjs_transactions`;
  await a.transaction(async (sql) => {
    await sql`INSERT INTO postgresjs_transactions VALUES (${1}), (${2})`;
    assert.equal(await count(), 0);
  });
  assert.equal(await count(), 2);
  await assert.rejects(a.transaction(async (sql) => {
    await sql`INSERT INTO postgresjs_transactions VALUES (3)`;
    throw new Error('not this one');
  }), /not this one/);
  assert.equal(await count(), 2);
  await fails('22012', a.sql.begin('ISOLATION LEVEL SERIALIZABLE', async (sql) => {
    assert.deepEqual([...await sql`SHOW transaction_isolation`], [{ transaction_isolation: 'serializable' }]);
    const first = await fails('22012', sql`SELECT 1 / 0`);
    await fails('25P02', sql`SELECT 1`);
    throw first;
  }));
  assert.equal(await a.value`SHOW transaction_isolation`, 'read committed');
  await a.sql`DROP TABLE postgresjs_transactions`;
}

async function savepoints(register) {
  const a = Session.open(register);
  await table(a, 'postgresjs_savepoints', 'n int PRIMARY KEY');
  await a.transaction(async (sql) => {
    await sql`INSERT INTO postgresjs_savepoints VALUES (1)`;
    await fails('23505', sql.savepoint((inner) => inner`INSERT INTO postgresjs_savepoints VALUES (${1})`));
    await sql.savepoint('two', (inner) => inner`INSERT INTO postgresjs_savepoints VALUES (${2})`);
  });
  assert.deepEqual(await a.value`SELECT array_agg(n ORDER BY n) FROM postgresjs_savepoints`, [1, 2]);
  await a.sql`DROP TABLE postgresjs_savepoints`;
}

async function copy(register) {
  const a = Session.open(register);
  await table(a, 'postgresjs_copy', 'n int, t text');
  const lines = Array.from({ length: 20_000 }, (_, n) => `${n}\trow ${n}\n`);
  await pipeline(Readable.from(lines), await a.sql`COPY postgresjs_copy FROM STDIN`.writable());
  assert.equal(await a.value`SELECT sum(n)::int FROM postgresjs_copy`, 199_990_000);
  // Read by its events, which never pause the stream: the driver may leave a paused one so for ever at its end.
  const parts = [];
  const out = await a.sql`COPY postgresjs_copy TO STDOUT`.readable();
  await finished(out.on('data', (part) => parts.push(part)));
  assert.equal(Buffer.concat(parts).toString(), lines.join(''));
  // Given up half way (CopyFail). An error of the server after the last row would never reach the stream.
  const half = await a.sql`COPY postgresjs_copy FROM STDIN`.writable();
  half.write(lines[0]);
  half.destroy();
  assert.equal(await a.value`SELECT count(*)::int FROM postgresjs_copy`, 20_000);
  await a.sql`DROP TABLE postgresjs_copy`;
}

async function cancel(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  const slow = a.sql`SELECT pg_sleep(15) AS postgresjs`;
  const ended = fails('57014', slow);
  ended.catch(() => {}); // it is waited for below
  const sleeping = () => b.value`SELECT count(*)::int FROM pg_stat_activity
    WHERE query LIKE '%pg_sleep(15) AS postgresjs' AND wait_event = 'PgSleep'`;
  while (await sleeping() === 0);
  slow.cancel();
  await ended;
  assert.equal(await a.value`SELECT 1`, 1);
}

async function statementTimeout(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  await a.sql`SET statement_timeout = '150ms'`;
  await alternate([a, b], 4, async (session, query) => {
    const rows = await query`SHOW statement_timeout`;
    assert.deepEqual([...rows], [{ statement_timeout: session === a ? '150ms' : '0' }]);
  });
  await b.transaction(async (sql) => {
    await sql`SELECT 1`;
    await fails('57014', a.sql`SELECT pg_sleep(15)`);
  });
  await fails('57014', a.transaction((sql) => sql`SELECT pg_sleep(${15})`));
  await a.sql`RESET statement_timeout`;
  assert.equal(await a.value`SHOW statement_timeout`, '0');
}

async function notices(register) {
  const seen = [];
  const onnotice = (notice) => seen.push([notice.severity, notice.message, notice.code]);
  const { sql } = Session.open(register, { onnotice });
  await sql`DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$`;
  assert.deepEqual(seen, [['NOTICE', 'hear me', '00000'], ['WARNING', 'and this', '01000']]);
}

async function largeRows(register) {
  const a = Session.open(register);
  assert.equal(await a.value`SELECT repeat('0123456789', 500000)`, '0123456789'.repeat(500_000));
  const rows = await a.sql`SELECT n, md5(n::text) AS t FROM generate_series(1, 50000) AS n`;
  assert.equal(rows.reduce((sum, row) => sum + row.n, 0), 1_250_025_000);
  let sum = 0;
  for await (const part of a.sql`SELECT n FROM generate_series(1, ${5000}::int) AS n`.cursor(700)) {
    sum += part.reduce((s, row) => s + row.n, 0);
  }
  assert.equal(sum, 12_502_500);
}

async function reconnect(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  await losesConnection(a.transaction(async (sql) => {
    const [{ pid }] = await sql`SELECT pg_backend_pid() AS pid`;
    assert.equal(await b.value`SELECT pg_terminate_backend(${pid}, 5000)`, true);
    return new Promise(() => {}); // the driver ends the transaction by itself when the connection is closed
  }));
  assert.equal(await within(5000, 'a new connection', a.value`SELECT 1`), 1); // the driver opens it by itself
  assert.equal(await b.value`SELECT 2`, 2);
}

async function temporaryTables(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  const c = Session.open(register);
  await a.sql`CREATE TEMPORARY TABLE postgresjs_temporary (n int)`;
  await b.sql`CREATE TEMPORARY TABLE postgresjs_temporary (n int)`;
  await alternate([a, b, c], 6, async (session, query, round) => {
    if (session === c) {
      assert.deepEqual([...await query`SELECT to_regclass('postgresjs_temporary') AS t`], [{ t: null }]);
      return;
    }
    const step = session === a ? 1 : 100;
    await query`INSERT INTO postgresjs_temporary VALUES (${step})`;
    const rows = await query`SELECT sum(n)::int AS sum FROM postgresjs_temporary`;
    assert.deepEqual([...rows], [{ sum: step * (round + 1) }]);
  });
  await a.sql`DROP TABLE postgresjs_temporary`;
  await b.sql`DROP TABLE postgresjs_temporary`;
}

const show = (query) => query`SELECT current_setting('search_path') AS path, current_setting('timezone') AS zone,
  current_setting('application_name') AS name`;

async function settings(register) {
  const sessions = [0, 1, 2].map(() => Session.open(register));
  const own = [
    { path: 'pg_catalog', zone: 'Asia/Tokyo', name: 'first' },
    { path: 'public', zone: 'America/Lima', name: 'second' },
  ];
  for (const [n, { path, zone, name }] of own.entries()) {
    await sessions[n].transaction(async (sql) => {
      await sql`SET search_path TO ${sql(path)}`;
      await sql.unsafe(`SET TIME ZONE '${zone}'`);
      await sql`SELECT set_config('application_name', ${name}, false)`;
    });
  }
  const [untouched] = await show(sessions[2].sql);
  assert.equal(untouched.name, 'postgres.js');
  await alternate(sessions, 9, async (session, query) => {
    const [row] = await show(query);
    assert.deepEqual(row, own[sessions.indexOf(session)] ?? untouched);
  });
}

async function role(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  await a.sql`SET ROLE pg_read_all_stats`;
  await alternate([a, b], 4, async (session, query) => {
    const rows = await query`SELECT current_user AS who`;
    assert.deepEqual([...rows], [{ who: session === a ? 'pg_read_all_stats' : process.env.PGUSER }]);
  });
  await a.sql`RESET ROLE`;
  assert.equal(await a.value`SELECT current_user`, process.env.PGUSER);
}

async function listen(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  const heard = [];
  let wake = () => {};
  const { unlisten } = await a.sql.listen('postgresjs', (payload) => (heard.push(payload), wake()));
  for (const payload of ['one', 'zwölf']) {
    const one = new Promise((resolve) => (wake = resolve));
    await b.sql.notify('postgresjs', payload);
    await within(5000, 'a notification', one);
  }
  assert.deepEqual(heard, ['one', 'zwölf']);
  await unlisten();
}

async function advisoryLocks(register) {
  const a = Session.open(register);
  const b = Session.open(register);
  const key = process.pid;
  await a.sql`SELECT pg_advisory_lock(${key})`;
  await alternate([a, b], 4, async (session, query) => {
    const rows = await query`SELECT pg_try_advisory_lock(${key}) AS taken`;
    assert.deepEqual([...rows], [{ taken: session === a }]);
    if (session === a) await query`SELECT pg_advisory_unlock(${key})`; // once for each time it was taken
  });
  assert.equal(await a.value`SELECT pg_advisory_unlock(${key})`, true);
  assert.equal(await b.value`SELECT pg_try_advisory_lock(${key})`, true);
  assert.equal(await b.value`SELECT pg_advisory_unlock(${key})`, true);
}

await run({
  connect,
  types,
  parameters,
  prepared,
  pipelining,
  transactions,
  savepoints,
  copy,
  cancel,
  statement_timeout: statementTimeout,
  notices,
  large_rows: largeRows,
  reconnect,
  temporary_tables: temporaryTables,
  settings,
  role,
  listen,
  advisory_locks: advisoryLocks,
});
