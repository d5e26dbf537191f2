<?php

declare(strict_types=1);

/** What the cells are made of: they run one after the other, one line for each. */

const LIMIT = 20; // seconds, for one cell

const NAMES = [
    'connect', 'types', 'parameters', 'prepared', 'pipelining', 'transactions', 'savepoints', 'copy', 'cancel',
    'statement_timeout', 'notices', 'large_rows', 'reconnect', 'temporary_tables', 'settings', 'role', 'listen',
    'advisory_locks',
];

/** The cell of a feature that the driver does not have. */
final class None extends Exception
{
}

function none(string $why): Closure
{
    return fn () => throw new None($why);
}

function show(mixed $value): string
{
    return substr(json_encode($value, JSON_INVALID_UTF8_SUBSTITUTE), 0, 200);
}

function same(mixed $expected, mixed $got): void
{
    if ($expected !== $got) {
        throw new UnexpectedValueException(show($expected) . ' expected, not ' . show($got));
    }
}

/** Checks that the action fails with this SQLSTATE. */
function fails(string $state, callable $action): PDOException
{
    try {
        $got = $action();
    } catch (PDOException $error) {
        if ($error->getCode() !== $state && ($error->errorInfo[0] ?? null) !== $state) {
            throw new UnexpectedValueException("$state expected, not {$error->getMessage()}");
        }
        return $error;
    }
    throw new UnexpectedValueException("$state expected, not " . show($got));
}

/** Runs the action in a transaction. */
function transaction(PDO $connection, callable $action): void
{
    $connection->beginTransaction();
    try {
        $action();
        $connection->commit();
    } catch (Throwable $error) {
        $connection->rollBack();
        throw $error;
    }
}

/**
 * Runs a check on all connections, again and again, in transactions of their own.
 *
 * In each round another one holds a transaction open meanwhile. So behind a pooler in transaction mode all get other
 * servers than in the round before. The check gets the connection, its number, and that of the round.
 */
function alternate(array $connections, int $rounds, callable $check): void
{
    for ($round = 0; $round < $rounds; $round++) {
        $holder = $round % count($connections);
        transaction($connections[$holder], function () use ($connections, $holder, $round, $check) {
            $check($connections[$holder], $holder, $round);
            foreach ($connections as $number => $connection) {
                if ($number !== $holder) {
                    $check($connection, $number, $round);
                }
            }
        });
    }
}

function line(string $name, callable $cell): string
{
    try {
        $note = $cell();
        return ($note === null ? '' : "# $name: $note\n") . "ok $name";
    } catch (None $none) {
        return "none $name: {$none->getMessage()}";
    } catch (Throwable $error) {
        $reason = preg_replace('/\s+/', ' ', $error->getMessage());
        return "fail $name: " . $error::class . ": $reason";
    }
}

/** The names on the command line, or, with `-`, on standard input line by line, or all. */
function chosen(array $arguments): iterable
{
    if ($arguments !== ['-']) {
        yield from $arguments ?: NAMES;
        return;
    }
    while (($line = fgets(STDIN)) !== false) {
        yield trim($line);
    }
}

/** Runs the chosen cells and ends the program. Each is a process, so that one that hangs can be ended. */
function run(array $cells, array $arguments): never
{
    $status = 0;
    foreach (chosen($arguments) as $name) {
        $child = pcntl_fork();
        if ($child === 0) {
            pcntl_alarm(LIMIT);
            $line = line($name, $cells[$name]);
            echo $line, "\n";
            exit(str_starts_with($line, 'fail') ? 1 : 0);
        }
        pcntl_waitpid($child, $ended);
        if (pcntl_wifsignaled($ended)) {
            $signal = pcntl_wtermsig($ended);
            echo "fail $name: ", $signal === SIGALRM ? 'nothing within ' . LIMIT . ' s' : "signal $signal", "\n";
        }
        if ($ended !== 0) {
            $status = 1;
        }
    }
    exit($status);
}
