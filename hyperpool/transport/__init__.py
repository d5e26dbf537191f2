"""Byte streams to servers and from clients; nothing here knows PostgreSQL's protocol."""
