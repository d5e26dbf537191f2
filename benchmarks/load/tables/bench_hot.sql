-- What everybody asks for again and again. pgbench's own tables are unlogged here, and no cache takes those: a crash
-- would empty them without a word.
CREATE TABLE bench_hot AS SELECT aid, abalance FROM pgbench_accounts WHERE aid <= 100000;
ALTER TABLE bench_hot ADD PRIMARY KEY (aid);
