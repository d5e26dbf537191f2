// The checklist with node-postgres (pg), settings as they are; where to connect to is in PGHOST, PGPORT, ...

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';

import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import Cursor from 'pg-cursor';

import { alternate, fails, losesConnection, run, within } from './checklist.mjs';

/** A client with the few calls that `alternate` needs. */
class Session {
  constructor(options) {
    this.client = new pg.Client(options);
    this.lost = new Promise((_, reject) => this.client.on('error', reject));
    this.lost.catch(() => {}); // for the one cell that asks; queries are rejected too
  }

  static async open(register, options) {
    const session = register(new Session(options));
    await session.client.connect();
    return session;
  }

  query = (statement, values) => this.client.query(statement, values);

  async value(statement, values) {
    const { rows } = await this.client.query(statement, values);
    return Object.values(rows[0])[0];
  }

  async transaction(body) {
    await this.query('BEGIN');
    try {
      const result = await body(this.query);
      await this.query('COMMIT');
      return result;
    } catch (error) {
      await this.query('ROLLBACK');
      throw error;
    }
  }

  close() {
    return this.client.end();
  }
}

async function table(session, name, columns) {
  await session.query(`DROP TABLE IF EXISTS ${name}`);
  await session.query(`CREATE TABLE ${name} (${columns})`);
}

async function connect(register) {
  const a = await Session.open(register, { application_name: 'node pg' });
  const { rows } = await a.query('SELECT current_user AS who, current_setting(\'application_name\') AS what');
  assert.deepEqual(rows, [{ who: process.env.PGUSER, what: 'node pg' }]);
  await a.close();
  const stranger = new pg.Client({ password: 'wrong' });
  stranger.on('error', () => {});
  await fails('28P01', stranger.connect());
}

async function types(register) {
  const a = await Session.open(register);
  const { rows, fields } = await a.query(`SELECT 1::int2 AS small, 2::int4 AS int, 9007199254740993::int8 AS big,
    1.5::float8 AS float, 12.340::numeric AS numeric, true AS bool, 'zwölf €'::text AS text,
    '\\x00ff'::bytea AS bytes, '2024-02-29 12:00:00.123+00'::timestamptz AS moment,
    'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid AS uuid, '{"a": [1, null]}'::jsonb AS json,
    ARRAY[1, NULL, 3] AS ints, ARRAY['a', 'b"c', NULL] AS texts, NULL::int AS nothing`);
  assert.deepEqual(rows[0], {
    small: 1, int: 2, big: '9007199254740993', float: 1.5, numeric: '12.340', bool: true, text: 'zwölf €',
    bytes: Buffer.from([0, 255]), moment: new Date('2024-02-29T12:00:00.123Z'),
    uuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6', json: { a: [1, null] },
    ints: [1, null, 3], texts: ['a', 'b"c', null], nothing: null,
  });
  assert.equal(fields.find((field) => field.name === 'json').dataTypeID, pg.types.builtins.JSONB);
}

async function parameters(register) {
  const a = await Session.open(register);
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  const moment = new Date('2024-02-29T12:00:00.123Z');
  const { rows } = await a.query(
    'SELECT $1::int AS a, $2::text AS b, $3::bytea AS c, $4::timestamptz AS d, $5::jsonb AS e, $6::int[] AS f,'
    + ' $7::text AS g, $8::bool AS h',
    [7, "it's", bytes, moment, { x: 1 }, [1, null, 3], null, false],
  );
  assert.deepEqual(rows[0], {
    a: 7, b: "it's", c: bytes, d: moment, e: { x: 1 }, f: [1, null, 3], g: null, h: false,
  });
  const long = 'é'.repeat(500_000);
  assert.equal(await a.value('SELECT $1::text', [long]), long);
  const many = Array.from({ length: 1000 }, (_, n) => n);
  const sum = many.map((n) => `$${n + 1}::int`).join(' + ');
  assert.equal(await a.value(`SELECT ${sum}`, many), 499_500);
  await fails('22P02', a.query('SELECT $1::int', ['seven']));
  assert.equal(await a.value('SELECT $1::int', [8]), 8);
}

async function prepared(register) {
  const sessions = [await Session.open(register), await Session.open(register), await Session.open(register)];
  const servers = new Map(sessions.map((session) => [session, new Set()]));
  await alternate(sessions, 30, async (session, query, round) => {
    const me = sessions.indexOf(session) * 1000 + round;
    // The same name means another statement on each connection.
    const own = { name: 'own', text: `SELECT $1::int + ${sessions.indexOf(session)} AS n, pg_backend_pid() AS pid` };
    const [row] = (await query({ ...own, values: [me] })).rows;
    assert.equal(row.n, me + sessions.indexOf(session));
    servers.get(session).add(row.pid);
    const common = { name: 'common', text: 'SELECT $1::text AS t', values: [`t${me}`] };
    assert.deepEqual((await query(common)).rows, [{ t: `t${me}` }]);
    assert.deepEqual((await query('SELECT $1::int AS plain', [me])).rows, [{ plain: me }]);
    const late = { name: `late ${round % 7}`, text: `SELECT ${round % 7} AS n` };
    assert.deepEqual((await query(late)).rows, [{ n: round % 7 }]);
  });
  const quotient = { name: 'quotient', text: 'SELECT 12 / $1::int AS q' };
  await sessions[0].query({ ...quotient, values: [3] });
  await fails('22012', sessions[0].query({ ...quotient, values: [0] }));
  assert.deepEqual((await sessions[0].query({ ...quotient, values: [4] })).rows, [{ q: 3 }]);

  const pool = new pg.Pool();
  register({ close: () => pool.end() });
  const square = (n) => pool.query({ name: 'square', text: 'SELECT $1::int * $1::int AS s', values: [n] });
  const results = await Promise.all(Array.from({ length: 200 }, (_, n) => square(n)));
  assert.deepEqual(results.map(({ rows }) => rows[0].s), results.map((_, n) => n * n));
  return `a connection has met ${Math.max(...[...servers.values()].map((pids) => pids.size))} servers`;
}

async function pipelining(register) {
  const a = await Session.open(register, { pipeline: true });
  const b = await Session.open(register, { pipeline: true });
  for (let round = 0; round < 5; round++) {
    const ask = (session) => [
      session.query('SELECT 1 AS n'),
      ...[2, 3].map((n) => session.query({ name: 'ahead', text: 'SELECT $1::int AS n', values: [n] })),
      session.query('SELECT 1 / $1::int AS n', [0]),
      session.query('BEGIN'),
      ...[4, 5].map((n) => session.query('SELECT $1::int AS n', [n])),
      session.query('COMMIT'),
      session.query('SELECT 6 AS n'),
    ];
    for (const results of await Promise.all([Promise.allSettled(ask(a)), Promise.allSettled(ask(b))])) {
      const got = results.map(({ value, reason }) => reason?.code ?? value.rows[0]?.n ?? value.command);
      assert.deepEqual(got, [1, 2, 3, '22012', 'BEGIN', 4, 5, 'COMMIT', 6]);
    }
  }
}

async function transactions(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  await table(a, 'node_pg_transactions', 'n int');
  const count = () => b.value('SELECT count(*)::int FROM node_pg_transactions');
  await a.transaction(async (query) => {
    await query('INSERT INTO node_pg_transactions VALUES ($1), ($2)', [1, 2]);
    assert.equal(await count(), 0);
  });
  assert.equal(await count(), 2);
  await assert.rejects(a.transaction(async (query) => {
    await query('INSERT INTO node_pg_transactions VALUES (3)');
    throw new Error('not this one');
  }), /not this one/);
  assert.equal(await count(), 2);
  await a.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
  assert.equal(await a.value('SHOW transaction_isolation'), 'serializable');
  await fails('22012', a.query('SELECT 1 / 0'));
  await fails('25P02', a.query('SELECT 1'));
  assert.equal((await a.query('COMMIT')).command, 'ROLLBACK');
  assert.equal(await a.value('SHOW transaction_isolation'), 'read committed');
  await a.query('DROP TABLE node_pg_transactions');
}

async function savepoints(register) {
  const a = await Session.open(register);
  await table(a, 'node_pg_savepoints', 'n int PRIMARY KEY');
  await a.transaction(async (query) => {
    await query('INSERT INTO node_pg_savepoints VALUES (1)');
    await query('SAVEPOINT one');
    await fails('23505', query('INSERT INTO node_pg_savepoints VALUES ($1)', [1]));
    await query('ROLLBACK TO SAVEPOINT one');
    await query('INSERT INTO node_pg_savepoints VALUES (2)');
    await query('RELEASE SAVEPOINT one');
  });
  assert.deepEqual(await a.value('SELECT array_agg(n ORDER BY n) FROM node_pg_savepoints'), [1, 2]);
  await a.query('DROP TABLE node_pg_savepoints');
}

async function copy(register) {
  const a = await Session.open(register);
  await table(a, 'node_pg_copy', 'n int, t text');
  const lines = Array.from({ length: 20_000 }, (_, n) => `${n}\trow ${n}\n`);
  const intoTable = () => a.client.query(copyFrom('COPY node_pg_copy FROM STDIN'));
  await pipeline(Readable.from(lines), intoTable());
  assert.equal(await a.value('SELECT sum(n)::int FROM node_pg_copy'), 199_990_000);
  const out = await text(a.client.query(copyTo('COPY node_pg_copy TO STDOUT')));
  assert.equal(out, lines.join(''));
  await fails('22P02', pipeline(Readable.from(['one\ttwo\n']), intoTable()));
  assert.equal(await a.value('SELECT count(*)::int FROM node_pg_copy'), 20_000);
  await a.query('DROP TABLE node_pg_copy');
}

async function cancel(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  const statement = 'SELECT pg_sleep(15) AS node_pg';
  const sleeping = "SELECT count(*)::int FROM pg_stat_activity WHERE query = $1 AND wait_event = 'PgSleep'";
  const slow = new pg.Query(statement);
  const ended = once(slow, 'end'); // rejects with the error
  a.client.query(slow);
  while (await b.value(sleeping, [statement]) === 0);
  new pg.Client().cancel(a.client, slow);
  await fails('57014', ended);
  assert.equal(await a.value('SELECT 1'), 1);
}

async function statementTimeout(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  await a.query("SET statement_timeout = '150ms'");
  await alternate([a, b], 4, async (session, query) => {
    const { rows } = await query('SHOW statement_timeout');
    assert.deepEqual(rows, [{ statement_timeout: session === a ? '150ms' : '0' }]);
  });
  await b.transaction(async () => {
    await fails('57014', a.query('SELECT pg_sleep(15)'));
  });
  await fails('57014', a.transaction((query) => query('SELECT pg_sleep($1)', [15])));
  await a.query('RESET statement_timeout');
  assert.equal(await a.value('SHOW statement_timeout'), '0');
}

async function notices(register) {
  const a = await Session.open(register);
  const seen = [];
  a.client.on('notice', (notice) => seen.push([notice.severity, notice.message, notice.code]));
  await a.query("DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$");
  assert.deepEqual(seen, [['NOTICE', 'hear me', '00000'], ['WARNING', 'and this', '01000']]);
}

async function largeRows(register) {
  const a = await Session.open(register);
  const large = await a.value("SELECT repeat('0123456789', 500000)");
  assert.equal(large, '0123456789'.repeat(500_000));
  const { rows } = await a.query('SELECT n, md5(n::text) AS t FROM generate_series(1, 50000) AS n');
  assert.equal(rows.reduce((sum, row) => sum + row.n, 0), 1_250_025_000);
  await a.transaction(async () => {
    const cursor = a.client.query(new Cursor('SELECT n FROM generate_series(1, $1::int) AS n', [5000]));
    let sum = 0;
    for (let part; (part = await cursor.read(700)).length > 0;) sum += part.reduce((s, row) => s + row.n, 0);
    await cursor.close();
    assert.equal(sum, 12_502_500);
  });
}

async function reconnect(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  await a.query('BEGIN');
  const pid = await a.value('SELECT pg_backend_pid()');
  assert.equal(await b.value('SELECT pg_terminate_backend($1, 5000)', [pid]), true);
  await losesConnection(within(5000, 'the end of the connection', a.lost));
  await assert.rejects(a.query('SELECT 1'));
  const c = await Session.open(register);
  assert.equal(await c.value('SELECT 1'), 1);
  assert.equal(await b.value('SELECT 2'), 2);
}

async function temporaryTables(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  const c = await Session.open(register);
  await a.query('CREATE TEMPORARY TABLE node_pg_temporary (n int)');
  await b.query('CREATE TEMPORARY TABLE node_pg_temporary (n int)');
  await alternate([a, b, c], 6, async (session, query, round) => {
    if (session === c) {
      const { rows } = await query("SELECT to_regclass('node_pg_temporary') AS t");
      assert.deepEqual(rows, [{ t: null }]);
      return;
    }
    const step = session === a ? 1 : 100;
    await query('INSERT INTO node_pg_temporary VALUES ($1)', [step]);
    const { rows } = await query('SELECT sum(n)::int AS sum FROM node_pg_temporary');
    assert.deepEqual(rows, [{ sum: step * (round + 1) }]);
  });
  await a.query('DROP TABLE node_pg_temporary');
  await b.query('DROP TABLE node_pg_temporary');
}

async function settings(register) {
  const sessions = [await Session.open(register), await Session.open(register), await Session.open(register)];
  const own = [['pg_catalog', 'Asia/Tokyo', 'first'], ['public', 'America/Lima', 'second']];
  for (const [n, [path, zone, name]] of own.entries()) {
    await sessions[n].transaction(async (query) => {
      await query(`SET search_path TO ${path}`);
      await query(`SET TIME ZONE '${zone}'`);
      await query("SELECT set_config('application_name', $1, false)", [name]);
    });
  }
  const untouched = await sessions[2].query(SHOW);
  const expected = own.map((values) => Object.fromEntries(['path', 'zone', 'name'].map((key, n) => [key, values[n]])));
  await alternate(sessions, 9, async (session, query) => {
    const { rows } = await query(SHOW);
    assert.deepEqual(rows[0], expected[sessions.indexOf(session)] ?? untouched.rows[0]);
    assert.notEqual(untouched.rows[0].name, 'first');
  });
}

const SHOW = "SELECT current_setting('search_path') AS path, current_setting('timezone') AS zone,"
  + " current_setting('application_name') AS name";

async function role(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  await a.query('SET ROLE pg_read_all_stats');
  await alternate([a, b], 4, async (session, query) => {
    const { rows } = await query('SELECT current_user AS who');
    assert.deepEqual(rows, [{ who: session === a ? 'pg_read_all_stats' : process.env.PGUSER }]);
  });
  await a.query('RESET ROLE');
  assert.equal(await a.value('SELECT current_user'), process.env.PGUSER);
}

async function listen(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  await a.query('LISTEN node_pg');
  for (const payload of ['one', 'zwölf']) {
    const heard = once(a.client, 'notification');
    await b.query('SELECT pg_notify($1, $2)', ['node_pg', payload]);
    const [message] = await within(5000, 'a notification', heard);
    assert.deepEqual([message.channel, message.payload], ['node_pg', payload]);
    assert.equal(await a.value('SELECT 1'), 1);
  }
  await a.query('UNLISTEN node_pg');
}

async function advisoryLocks(register) {
  const a = await Session.open(register);
  const b = await Session.open(register);
  const key = process.pid;
  await a.query('SELECT pg_advisory_lock($1)', [key]);
  await alternate([a, b], 4, async (session, query) => {
    const { rows } = await query('SELECT pg_try_advisory_lock($1) AS taken', [key]);
    assert.deepEqual(rows, [{ taken: session === a }]);
    if (session === a) await query('SELECT pg_advisory_unlock($1)', [key]); // once for each time it was taken
  });
  assert.equal(await a.value('SELECT pg_advisory_unlock($1)', [key]), true);
  assert.equal(await b.value('SELECT pg_try_advisory_lock($1)', [key]), true);
  assert.equal(await b.value('SELECT pg_advisory_unlock($1)', [key]), true);
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
