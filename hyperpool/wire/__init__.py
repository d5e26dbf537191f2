"""The PostgreSQL frontend/backend protocol, version 3.0, without any I/O: bytes in, bytes out.

Names are those of the PostgreSQL documentation, chapter "Frontend/Backend Protocol". Modules:

- ``constants``: the type byte of every message, and the request codes.
- ``frames``: where one message ends and the next begins; the relay's scanner and the login buffer.
- ``startup``: the packets that come before the first ordinary message.
- ``messages``: builders of complete frames and parsers of bodies.
- ``text``: strings on the wire.

Malformed input raises `hyperpool.errors.ProtocolError` and nothing else.
"""
