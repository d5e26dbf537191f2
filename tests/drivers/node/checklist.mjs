// What the programs of both drivers share: the cells run one after the other, one line for each.

import { createInterface } from 'node:readline';

export const CELLS = [
  'connect', 'types', 'parameters', 'prepared', 'pipelining', 'transactions', 'savepoints', 'copy', 'cancel',
  'statement_timeout', 'notices', 'large_rows', 'reconnect', 'temporary_tables', 'settings', 'role', 'listen',
  'advisory_locks',
];

const LIMIT = 20_000; // milliseconds, for one cell

/** Marks a cell that this driver has no feature for. */
export class None {
  constructor(why) {
    this.why = why;
  }
}

/** Rejects when the promise has not settled in time. */
export async function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Checks that the promise is rejected with this SQLSTATE, and returns the error. */
export async function fails(code, promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    if (error.code !== code) throw new Error(`${code} expected, not ${error.code}`, { cause: error });
    return error;
  }
  throw new Error(`${code} expected, not the result ${JSON.stringify(value)}`);
}

/** Checks that the promise is rejected because the connection is gone. */
export async function losesConnection(promise) {
  const error = await promise.then(() => new Error('no error'), (reason) => reason);
  const known = /^(57P01|08...|ECONNRESET|EPIPE|CONNECTION_CLOSED)$/.test(error.code);
  if (!known && !/terminated unexpectedly/.test(error.message)) {
    throw new Error('a lost connection expected', { cause: error });
  }
}

/**
 * Runs a check on all sessions, again and again, in transactions of their own.
 *
 * In each round another session holds a transaction open meanwhile. So behind a pooler in transaction mode all
 * sessions get other servers than in the round before.
 */
export async function alternate(sessions, rounds, check) {
  for (let round = 0; round < rounds; round++) {
    const holder = sessions[round % sessions.length];
    await holder.transaction(async (query) => {
      await check(holder, query, round);
      for (const other of sessions.filter((session) => session !== holder)) {
        await check(other, other.query, round);
      }
    });
  }
}

function oneLine(error) {
  const chain = [];
  for (let link = error; link; link = link.cause) {
    const code = link.code ? ` (${link.code})` : '';
    chain.push(`${link.message ?? link}${code}`);
  }
  return chain.join('; ').replace(/\s+/g, ' ');
}

async function line(name, cell) {
  if (cell instanceof None) return `none ${name}: ${cell.why}`;
  const open = [];
  try {
    const note = await within(LIMIT, name, cell((session) => (open.push(session), session)));
    return `${note ? `# ${name}: ${note}\n` : ''}ok ${name}`;
  } catch (error) {
    process.exitCode = 1;
    return `fail ${name}: ${oneLine(error)}`;
  } finally {
    await within(2000, 'close', Promise.all(open.map((session) => session.close()))).catch(() => {});
  }
}

/**
 * Runs the cells named on the command line, or, with `-`, on standard input line by line, or all.
 *
 * Each is a function that gets a function to register sessions with, which are closed after the cell. What it
 * returns, if anything, is a note that is printed before its line.
 */
export async function run(cells) {
  process.on('unhandledRejection', (error) => {
    process.exitCode = 1;
    console.log(`# nobody waited for: ${oneLine(error)}`);
  });
  const named = process.argv.slice(2);
  const chosen = named[0] === '-' ? createInterface(process.stdin) : named.length > 0 ? named : CELLS;
  for await (const name of chosen) console.log(await line(name, cells[name]));
  process.exit();
}
