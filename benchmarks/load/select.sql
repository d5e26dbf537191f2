-- One row by its primary key, the query that caches and web requests are made of; the same as `pgbench -S`.
-- PostgreSQL does almost nothing for it, so the cost of the pooler shows most clearly here.
\set aid random(1, 100000 * :scale)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
