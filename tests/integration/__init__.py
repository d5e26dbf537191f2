"""Black-box tests: a real pooler process between real clients and a real PostgreSQL."""
