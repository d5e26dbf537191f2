-- One row by its primary key, of a thousand that everybody asks for: what a result cache is for.
\set aid random(1, 1000)
SELECT abalance FROM bench_hot WHERE aid = :aid;
