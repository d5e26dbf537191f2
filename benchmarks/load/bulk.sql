-- The tables for the bulk COPY, about 300 MB each as COPY sends them. Rows of about 1 kB model exports of documents;
-- rows of about 100 bytes model ordinary tables, and have ten times as many messages for the pooler to look at.
CREATE UNLOGGED TABLE bulk_wide AS SELECT n, repeat(md5(n::text), 31) AS filler FROM generate_series(1, 298000) AS n;
CREATE UNLOGGED TABLE bulk_narrow AS SELECT n, repeat(md5(n::text), 3) AS filler FROM generate_series(1, 2750000) AS n;
