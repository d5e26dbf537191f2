"""The error tree: what can go wrong, told apart by cause.

::

    HyperpoolError
    ├── ConfigError             the settings are wrong; lists every problem at once
    ├── StartupError            the pooler cannot start (an address is taken, a directory cannot be written)
    ├── ProtocolError           08P01: a peer broke the wire protocol
    ├── AuthenticationError     28000, 28P01: a client is not let in
    ├── ClientRefused           a client is turned away for another reason (limits, timeouts, unknown database)
    └── UpstreamError           a server connection cannot be had
        ├── ConnectFailed       08001: no byte stream to the server
        └── LoginFailed         the server, in its own words, does not let us in
            ├── PasswordMissing it asks for a password, and there is none
            └── KeysMissing     it asks for SCRAM, and only a SCRAM secret is known

A message says what happened and, where the reader can do something about it, the remedy. Error *responses* of
PostgreSQL are messages, relayed untouched, and never become exceptions on their way to a client.
"""

from __future__ import annotations


class HyperpoolError(Exception):
    """Base of every error that hyperpool raises on purpose.

    Attributes:
        sqlstate: the five-character SQLSTATE that a client sees when this error ends its connection
            (PostgreSQL docs, appendix "PostgreSQL Error Codes").
    """

    sqlstate: str = "58000"


class ConfigError(HyperpoolError):
    """The settings cannot be used.

    Args:
        problems: one line per problem, each with the dotted path of the setting and the remedy.
    """

    sqlstate = "F0000"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartupError(HyperpoolError):
    """The pooler cannot start; the message is one line for the operator."""


class ProtocolError(HyperpoolError):
    """A peer sent bytes that the PostgreSQL frontend/backend protocol does not allow."""

    sqlstate = "08P01"


class AuthenticationError(HyperpoolError):
    """A client is not let in. The message never tells which half of the credentials was wrong."""

    def __init__(self, message: str, sqlstate: str = "28P01") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class ClientRefused(HyperpoolError):
    """A client is turned away for a reason other than its credentials."""

    def __init__(self, message: str, sqlstate: str, hint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.hint = hint


class UpstreamError(HyperpoolError):
    """A server connection cannot be had.

    Attributes:
        response: the complete ErrorResponse of the server, if it sent one, to be relayed in its own words.
    """

    response: bytes = b""


class ConnectFailed(UpstreamError):
    """No byte stream to the server could be opened, or it broke before the login was complete."""

    sqlstate = "08001"


class LoginFailed(UpstreamError):
    """The server refused the login.

    Args:
        message: the server's primary message, or ours when the server's behaviour made login impossible.
        sqlstate: the server's SQLSTATE.
        response: the server's complete ErrorResponse frame, or b"" when the failure is not the server's own.
        authenticated: whether the server had accepted who we are, and refused behind that.
    """

    def __init__(
        self,
        message: str,
        sqlstate: str = "08004",
        response: bytes = b"",
        *,
        authenticated: bool = False,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.response = response
        self.authenticated = authenticated


class PasswordMissing(LoginFailed):
    """The server asks for a password, and there is none."""


class KeysMissing(LoginFailed):
    """The server asks for SCRAM, and what is stored is a SCRAM secret: a client's own login would bring the keys."""
