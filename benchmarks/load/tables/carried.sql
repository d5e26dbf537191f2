-- A hundred megabytes that go through tunnels, out of one table and into the other.
CREATE UNLOGGED TABLE carried_out AS SELECT n, repeat('x', 991) AS filler FROM generate_series(1, 100000) AS n;
CREATE UNLOGGED TABLE carried_in (n int, filler text);
