"""Type bytes and codes of the protocol, as integers.

Source: PostgreSQL documentation, "Message Formats". The same byte may mean one thing from a frontend and
another from a backend (``D`` is Describe or DataRow), so names are told apart by who sends them.
"""

from __future__ import annotations

from typing import Final

# Sent by a frontend.
BIND: Final = 0x42  # B
CLOSE: Final = 0x43  # C
COPY_FAIL: Final = 0x66  # f
DESCRIBE: Final = 0x44  # D
EXECUTE: Final = 0x45  # E
FLUSH: Final = 0x48  # H
FUNCTION_CALL: Final = 0x46  # F
PARSE: Final = 0x50  # P
PASSWORD_MESSAGE: Final = 0x70  # p
# The next three share the byte of PasswordMessage; only the state of the login tells them apart.
GSS_RESPONSE: Final = PASSWORD_MESSAGE
SASL_INITIAL_RESPONSE: Final = PASSWORD_MESSAGE
SASL_RESPONSE: Final = PASSWORD_MESSAGE
QUERY: Final = 0x51  # Q
SYNC: Final = 0x53  # S
TERMINATE: Final = 0x58  # X

# Sent by both.
COPY_DATA: Final = 0x64  # d
COPY_DONE: Final = 0x63  # c

# Sent by a backend.
AUTHENTICATION: Final = 0x52  # R
BACKEND_KEY_DATA: Final = 0x4B  # K
BIND_COMPLETE: Final = 0x32  # 2
CLOSE_COMPLETE: Final = 0x33  # 3
COMMAND_COMPLETE: Final = 0x43  # C
COPY_BOTH_RESPONSE: Final = 0x57  # W
COPY_IN_RESPONSE: Final = 0x47  # G
COPY_OUT_RESPONSE: Final = 0x48  # H
DATA_ROW: Final = 0x44  # D
EMPTY_QUERY_RESPONSE: Final = 0x49  # I
ERROR_RESPONSE: Final = 0x45  # E
FUNCTION_CALL_RESPONSE: Final = 0x56  # V
NEGOTIATE_PROTOCOL_VERSION: Final = 0x76  # v
NO_DATA: Final = 0x6E  # n
NOTICE_RESPONSE: Final = 0x4E  # N
NOTIFICATION_RESPONSE: Final = 0x41  # A
PARAMETER_DESCRIPTION: Final = 0x74  # t
PARAMETER_STATUS: Final = 0x53  # S
PARSE_COMPLETE: Final = 0x31  # 1
PORTAL_SUSPENDED: Final = 0x73  # s
READY_FOR_QUERY: Final = 0x5A  # Z
ROW_DESCRIPTION: Final = 0x54  # T

# The status byte of ReadyForQuery.
IDLE: Final = 0x49  # I
IN_TRANSACTION: Final = 0x54  # T
IN_FAILED_TRANSACTION: Final = 0x45  # E

# The first four bytes of an Authentication message's body.
AUTH_OK: Final = 0
AUTH_KERBEROS_V5: Final = 2
AUTH_CLEARTEXT_PASSWORD: Final = 3
AUTH_MD5_PASSWORD: Final = 5
AUTH_GSS: Final = 7
AUTH_GSS_CONTINUE: Final = 8
AUTH_SSPI: Final = 9
AUTH_SASL: Final = 10
AUTH_SASL_CONTINUE: Final = 11
AUTH_SASL_FINAL: Final = 12

# The first four bytes of a packet without a type byte. The upper half of the three requests, 1234, stands
# where a StartupMessage has the protocol's major version.
PROTOCOL_3_0: Final = 3 << 16
CANCEL_REQUEST: Final = (1234 << 16) | 5678
SSL_REQUEST: Final = (1234 << 16) | 5679
GSSENC_REQUEST: Final = (1234 << 16) | 5680
