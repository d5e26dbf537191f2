<?php

declare(strict_types=1);

/** The checklist with PDO's pgsql driver, settings as they are; where to connect to is in PGHOST, PGPORT, ... */

require __DIR__ . '/checklist.php';

function open(string $settings = ''): PDO
{
    return new PDO("pgsql:$settings");
}

/** Executes a statement with parameters, and returns its rows. */
function rows(PDO $connection, string $sql, mixed ...$parameters): array
{
    $statement = $connection->prepare($sql);
    $statement->execute($parameters);
    return $statement->fetchAll(PDO::FETCH_NUM);
}

/** Returns the first column of the only row. */
function value(PDO $connection, string $sql, mixed ...$parameters): mixed
{
    $rows = rows($connection, $sql, ...$parameters);
    same(1, count($rows));
    return $rows[0][0];
}

function table(PDO $connection, string $name, string $columns): void
{
    $connection->exec("DROP TABLE IF EXISTS $name");
    $connection->exec("CREATE TABLE $name ($columns)");
}

function connect(): void
{
    $a = open("application_name='php pdo'");
    same([[getenv('PGUSER'), 'php pdo']], rows($a, "SELECT current_user, current_setting('application_name')"));
    same(true, version_compare($a->getAttribute(PDO::ATTR_SERVER_VERSION), '9.0', '>'));
    $refused = fails('08006', fn () => open('password=wrong'));
    same(true, str_contains($refused->getMessage(), 'password authentication failed'));
}

function types(): void
{
    $row = rows(open(), <<<'SQL'
        SELECT 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, 12.340::numeric, true, 'zwölf €',
            '\x00ff'::bytea, '2024-02-29 12:00:00.123+00'::timestamptz, '{"a": [1, null]}'::jsonb,
            ARRAY[1, NULL, 3], NULL::int
        SQL)[0];
    $row[7] = stream_get_contents($row[7]);
    same([1, 2, 9007199254740993, '1.5', '12.340', true, 'zwölf €', "\0\xFF", '2024-02-29 12:00:00.123+00',
        '{"a": [1, null]}', '{1,NULL,3}', null], $row);
}

function parameters(): void
{
    $a = open();
    $bytes = implode('', array_map('chr', range(0, 255)));
    $statement = $a->prepare('SELECT :int::int, :text::text, :bytea::bytea, :moment::timestamptz,'
        . " :json::jsonb ->> 'x', :nothing::text, :flag::bool, :text::text || '?'");
    $statement->bindValue('int', 7, PDO::PARAM_INT);
    $statement->bindValue('text', "it's");
    $statement->bindValue('bytea', $bytes, PDO::PARAM_LOB);
    $statement->bindValue('moment', '2024-02-29 12:00:00.123+00');
    $statement->bindValue('json', '{"x": "y"}');
    $statement->bindValue('nothing', null, PDO::PARAM_NULL);
    $statement->bindValue('flag', false, PDO::PARAM_BOOL);
    $statement->execute();
    $row = $statement->fetch(PDO::FETCH_NUM);
    $row[2] = stream_get_contents($row[2]);
    same([7, "it's", $bytes, '2024-02-29 12:00:00.123+00', 'y', null, false, "it's?"], $row);
    $long = str_repeat('é', 500_000);
    same($long, value($a, 'SELECT ?::text', $long));
    same(499_500, value($a, 'SELECT ' . implode(' + ', array_fill(0, 1000, '?::int')), ...range(0, 999)));
    fails('22P02', fn () => value($a, 'SELECT ?::int', 'seven'));
    same(8, value($a, 'SELECT ?::int', 8));
}

function prepared(): string
{
    $connections = [open(), open(), open()];
    $servers = [[], [], []];
    $own = [];
    foreach ($connections as $number => $connection) {
        // The driver counts the names, so that they are the same on each connection.
        $own[] = $connection->prepare("SELECT ?::int + $number, pg_backend_pid()");
    }
    alternate($connections, 30, function (PDO $connection, int $number, int $round) use ($own, &$servers) {
        $me = $number * 1000 + $round;
        $own[$number]->execute([$me]);
        [$got, $pid] = $own[$number]->fetch(PDO::FETCH_NUM);
        same($me + $number, $got);
        $servers[$number][$pid] = true;
        same("t$me", value($connection, 'SELECT ?::text', "t$me")); // prepared, and deallocated behind it
        same($round % 7, $connection->query('SELECT ' . $round % 7)->fetchColumn());
    });
    $a = $connections[0];
    $quotient = $a->prepare('SELECT 12 / ?::int');
    fails('22012', fn () => $quotient->execute([0]));
    $quotient->execute([4]);
    same(3, $quotient->fetchColumn());
    fails('42703', fn () => $a->prepare('SELECT nothing_of_this_name WHERE 1 = ?')->execute([1]));
    fails('22012', fn () => transaction($a, function () use ($a) {
        $late = $a->prepare('SELECT 1 / ?::int');
        $late->execute([0]); // its DEALLOCATE is refused: the transaction has failed
    }));
    for ($n = 0; $n < 100; $n++) {
        same($n * $n, value($connections[$n % 3], 'SELECT ?::int * ?::int', $n, $n));
    }
    return 'a connection has met ' . max(array_map('count', $servers)) . ' servers';
}

function transactions(): void
{
    [$a, $b] = [open(), open()];
    table($a, 'php_transactions', 'n int');
    $count = fn () => value($b, 'SELECT count(*) FROM php_transactions');
    transaction($a, function () use ($a, $count) {
        rows($a, 'INSERT INTO php_transactions VALUES (?), (?)', 1, 2);
        same(0, $count());
    });
    same(2, $count());
    fails('22012', fn () => transaction($a, function () use ($a) {
        $a->exec('INSERT INTO php_transactions VALUES (3)');
        $error = fails('22012', fn () => rows($a, 'SELECT 1 / ?::int', 0));
        fails('25P02', fn () => $a->query('SELECT 1'));
        same(true, $a->inTransaction());
        throw $error;
    }));
    same(false, $a->inTransaction());
    same(2, $count());
    $a->beginTransaction();
    $a->exec('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE');
    same('serializable', value($a, 'SHOW transaction_isolation'));
    $a->rollBack();
    same('read committed', value($a, 'SHOW transaction_isolation'));
    $a->exec('DROP TABLE php_transactions');
}

function savepoints(): void
{
    $a = open();
    table($a, 'php_savepoints', 'n int PRIMARY KEY');
    transaction($a, function () use ($a) {
        $a->exec('INSERT INTO php_savepoints VALUES (1)');
        $a->exec('SAVEPOINT one');
        fails('23505', fn () => rows($a, 'INSERT INTO php_savepoints VALUES (?)', 1));
        $a->exec('ROLLBACK TO SAVEPOINT one');
        $a->exec('INSERT INTO php_savepoints VALUES (2)');
        $a->exec('RELEASE SAVEPOINT one');
    });
    same([[1], [2]], rows($a, 'SELECT n FROM php_savepoints ORDER BY n'));
    $a->exec('DROP TABLE php_savepoints');
}

function copying(): void
{
    $a = open();
    table($a, 'php_copy', 'n int, t text');
    $lines = array_map(fn (int $n) => "$n\trow $n\n", range(0, 19_999));
    same(true, $a->pgsqlCopyFromArray('php_copy', $lines));
    same($lines, $a->pgsqlCopyToArray('php_copy'));
    fails('22P02', fn () => $a->pgsqlCopyFromArray('php_copy', ["one\ttwo\n"]));
    same(20_000, value($a, 'SELECT count(*) FROM php_copy'));
    $a->exec('DROP TABLE php_copy');
}

function statement_timeout(): void
{
    [$a, $b] = [open(), open()];
    $a->exec("SET statement_timeout = '150ms'");
    alternate([$a, $b], 4, fn (PDO $one, int $number) =>
        same(['150ms', '0'][$number], value($one, 'SHOW statement_timeout')));
    transaction($b, function () use ($a, $b) {
        $b->exec('SELECT 1');
        fails('57014', fn () => $a->exec('SELECT pg_sleep(15)'));
    });
    fails('57014', fn () => transaction($a, fn () => rows($a, 'SELECT pg_sleep(?)', 15)));
    $a->exec('RESET statement_timeout');
    same('0', value($a, 'SHOW statement_timeout'));
}

function large_rows(): void
{
    $a = open();
    same(str_repeat('0123456789', 500_000), value($a, "SELECT repeat('0123456789', 500000)"));
    $sum = 0;
    foreach ($a->query('SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n', PDO::FETCH_NUM) as [$n, $hash]) {
        $sum += $n;
    }
    same(1_250_025_000, $sum);
    // A scrollable cursor, which the driver declares WITH HOLD: it needs no transaction.
    $cursor = $a->prepare(
        'SELECT n FROM generate_series(1, 300) AS n',
        [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL],
    );
    $cursor->execute();
    $sum = 0;
    while (($n = $cursor->fetchColumn()) !== false) {
        $sum += $n;
    }
    same(45_150, $sum);
    same(300, $cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0]);
    same(1, $cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_FIRST)[0]);
}

function reconnect(): void
{
    [$a, $b] = [open(), open()];
    $a->beginTransaction();
    $pid = value($a, 'SELECT pg_backend_pid()');
    same(true, value($b, 'SELECT pg_terminate_backend(?, 5000)', $pid));
    try {
        $a->query('SELECT 1');
        throw new UnexpectedValueException('a lost connection expected');
    } catch (PDOException $error) {
        same(1, preg_match('/^(57P01|08...|HY000)$/', (string) $error->getCode()));
        same(1, preg_match('/terminating connection|server closed the connection|no connection/', $error->getMessage()));
    }
    same(1, value(open(), 'SELECT 1'));
    same(2, value($b, 'SELECT 2'));
}

function temporary_tables(): void
{
    $connections = [$a, $b] = [open(), open(), open()];
    $a->exec('CREATE TEMPORARY TABLE php_temporary (n int)');
    $b->exec('CREATE TEMPORARY TABLE php_temporary (n int)');
    alternate($connections, 6, function (PDO $connection, int $number, int $round) {
        if ($number === 2) {
            same(null, value($connection, "SELECT to_regclass('php_temporary')"));
            return;
        }
        $step = [1, 100][$number];
        rows($connection, 'INSERT INTO php_temporary VALUES (?)', $step);
        same($step * ($round + 1), value($connection, 'SELECT sum(n) FROM php_temporary'));
    });
    $a->exec('DROP TABLE php_temporary');
    $b->exec('DROP TABLE php_temporary');
}

function settings(): void
{
    $connections = [open(), open(), open('application_name=third')];
    $expected = [['pg_catalog', 'Asia/Tokyo', 'first'], ['public', 'America/Lima', 'second']];
    foreach ($expected as $number => [$path, $zone, $name]) {
        $connection = $connections[$number];
        transaction($connection, function () use ($connection, $path, $zone, $name) {
            $connection->exec("SET search_path TO $path");
            $connection->exec("SET TIME ZONE '$zone'");
            rows($connection, "SELECT set_config('application_name', ?, false)", $name);
        });
    }
    $show = "SELECT current_setting('search_path'), current_setting('timezone'), current_setting('application_name')";
    $expected[] = rows($connections[2], $show)[0];
    same('third', $expected[2][2]);
    alternate($connections, 9, fn (PDO $one, int $number) => same($expected[$number], rows($one, $show)[0]));
}

function role(): void
{
    [$a, $b] = [open(), open()];
    $a->exec('SET ROLE pg_read_all_stats');
    alternate([$a, $b], 4, fn (PDO $one, int $number) =>
        same(['pg_read_all_stats', getenv('PGUSER')][$number], value($one, 'SELECT current_user')));
    $a->exec('RESET ROLE');
    same(getenv('PGUSER'), value($a, 'SELECT current_user'));
}

function listen(): void
{
    [$a, $b] = [open(), open()];
    $a->exec('LISTEN php');
    foreach (['one', 'zwölf'] as $payload) {
        rows($b, 'SELECT pg_notify(?, ?)', 'php', $payload);
        $heard = $a->pgsqlGetNotify(PDO::FETCH_ASSOC, 5000);
        same(['php', $payload], [$heard['message'], $heard['payload']]);
        same(1, value($a, 'SELECT 1'));
    }
    $a->exec('UNLISTEN php');
}

function advisory_locks(): void
{
    [$a, $b] = [open(), open()];
    $ask = fn (PDO $one, string $function) => value($one, "SELECT pg_$function(?)", getmypid());
    $ask($a, 'advisory_lock');
    alternate([$a, $b], 4, function (PDO $one, int $number) use ($ask) {
        same($number === 0, $ask($one, 'try_advisory_lock'));
        if ($number === 0) {
            same(true, $ask($one, 'advisory_unlock')); // once for each time it was taken
        }
    });
    same(true, $ask($a, 'advisory_unlock'));
    same(true, $ask($b, 'try_advisory_lock'));
    same(true, $ask($b, 'advisory_unlock'));
}

run([
    'connect' => connect(...),
    'types' => types(...),
    'parameters' => parameters(...),
    'prepared' => prepared(...),
    'pipelining' => none('PDO waits for the answer to each statement'),
    'transactions' => transactions(...),
    'savepoints' => savepoints(...),
    'copy' => copying(...),
    'cancel' => none('PDO has no call that cancels a statement'),
    'statement_timeout' => statement_timeout(...),
    'notices' => none('PDO shows notices from PHP 8.4 on'),
    'large_rows' => large_rows(...),
    'reconnect' => reconnect(...),
    'temporary_tables' => temporary_tables(...),
    'settings' => settings(...),
    'role' => role(...),
    'listen' => listen(...),
    'advisory_locks' => advisory_locks(...),
], array_slice($argv, 1));
