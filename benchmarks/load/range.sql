-- A hundred neighbouring rows, about 10 kB: a page of a list, as web applications and reports ask for it. The answer
-- comes in a hundred messages, which a pooler has to tell apart, however little it does with them.
\set aid random(1, 100000 * :scale - 100)
SELECT * FROM pgbench_accounts WHERE aid BETWEEN :aid AND :aid + 99;
