"""Authentication without any I/O, in both roles: as a server towards clients, as a client towards servers.

Modules:

- ``saslprep``: the normal form of a password for SCRAM.
- ``md5``: PostgreSQL's MD5 challenge.
- ``binding``: channel binding, for SCRAM over TLS.
- ``scram``: the two sides of a SCRAM-SHA-256 exchange (RFC 5802, RFC 7677).
- ``secrets``: what an ``auth_file`` or a settings file stores about a user.
- ``server_side``: asks a client for its password.
- ``penalty``: how often passwords may be tried.
- ``client_side``: logs in to a server.
"""
