-- One gigabyte as COPY sends it, in rows of about 1 kB, as exports of documents have them.
CREATE UNLOGGED TABLE bulk_wide AS SELECT n, repeat(md5(n::text), 31) AS filler FROM generate_series(1, 995000) AS n;
