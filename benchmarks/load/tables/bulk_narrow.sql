-- One gigabyte as COPY sends it, in rows of about 100 bytes, as ordinary tables have them: ten times as many messages for
-- a pooler to look at.
CREATE UNLOGGED TABLE bulk_narrow AS SELECT n, repeat(md5(n::text), 3) AS filler FROM generate_series(1, 9200000) AS n;
