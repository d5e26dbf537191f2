-- Run with a new connection per transaction (-C): a PHP-like application that logs in, asks for one row and leaves.
\set aid random(1, 100000 * :scale)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
