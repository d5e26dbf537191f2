"""The test harness: a real PostgreSQL, a real pooler process, a raw protocol client and a fault proxy."""
