-- Run with a new connection per transaction (-C): the client logs in and leaves without a query. It models health
-- checks and pools that open connections in advance, and shows what a login alone costs: a pooler with a warm pool
-- answers it without its PostgreSQL.
\set nothing 0
