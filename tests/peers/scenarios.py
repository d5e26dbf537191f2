"""What both poolers are put through: settings files, and scripts of `tests.peers.stage.Side.play`."""

from __future__ import annotations

from typing import Final

import attrs

USERLIST: Final = """\
"ann" "{ann}"
"bob" "{bob}"
"clara" "{clara}"
"mira" "{mira}"
"""

_COMMON: Final = """\
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {directory}
auth_file = {directory}/userlist.txt
admin_users = ann
stats_users = bob
server_login_retry = 1
ignore_startup_parameters = extra_float_digits
"""

_DATABASES: Final = """\
[databases]
app = {server} dbname=app
tiny = {server} dbname=app pool_size=1
brief = {server} dbname=app pool_size=1
session = {server} dbname=app pool_mode=session
statement = {server} dbname=app pool_mode=statement
forced = {server} dbname=app user=bob password='bob''s'
renamed = {server} dbname=other
capped = {server} dbname=app max_db_connections=1
crowded = {server} dbname=app max_db_client_connections=1
set = {server} dbname=app application_name=preset timezone=UTC datestyle=German client_encoding=LATIN1
greeted = {server} dbname=app connect_query='SET work_mem = ''3MB'''
missing = {server} dbname=no_such_database
asked = {server} dbname=app
"""

_USERS: Final = """\
[users]
bob = max_user_client_connections=2
clara = max_user_connections=1 pool_mode=session
"""

_HBA: Final = """\
# the first rule that fits counts
local all          ann                            peer map=people
local all          bob                            trust
host  renamed      all    all                     reject
host  pgbouncer    all    all                     reject
host  session      ann    127.0.0.1/32            trust
host  session      all    10.0.0.0 255.0.0.0      trust
host  sameuser     all    127.0.0.1/32            trust
host  app,tiny     "ann"  127.0.0.0/8             md5
host  app          @names all                     scram-sha-256
host  app          bob    0.0.0.0/0               password # in clear text
hostssl all        all    all                     trust
host  replication  all    all                     trust
"""
_IDENT: Final = """\
people nobody_at_all ann
"""
_ASKED: Final = """\
auth_user = clara
auth_dbname = asked
auth_query = SELECT $1::text, CASE $1 WHEN 'ann' THEN 'ann''s secret' END WHERE $1 IN ('ann', 'bob')
"""


@attrs.frozen
class Setting:
    """A settings file of both poolers.

    Attributes:
        ini: its text.
        files: more files beside it.
    """

    ini: str
    files: dict[str, str] = attrs.field(factory=dict)


def stages(passwords: dict[str, str]) -> dict[str, Setting]:
    """The settings files, by the names that scenarios call them."""
    files = {"userlist.txt": USERLIST.format(**passwords)}
    databases = _DATABASES.replace("bob''s", passwords["bob"].replace("'", "''"))

    def stage(more: str) -> Setting:
        return Setting(f"{databases}\n{_USERS}\n{_COMMON}{more}", files)

    return {
        "trust": stage("auth_type = trust\npool_mode = transaction\nmax_client_conn = 60\n"),
        "plain": stage("auth_type = plain\n"),
        "md5": stage("auth_type = md5\n"),
        "scram": stage("auth_type = scram-sha-256\n"),
        "timeouts": stage(
            "auth_type = trust\npool_mode = transaction\nquery_timeout = 1\nidle_transaction_timeout = 1\n"
            "query_wait_timeout = 1\nclient_idle_timeout = 1\nclient_login_timeout = 2\n"
        ),
        "full": stage("auth_type = trust\nmax_client_conn = 2\n"),
        "any": stage("auth_type = any\n"),
        "locked": Setting(
            f"{databases}\n[users]\nann = pool_mode=session\n{_COMMON}auth_type = md5\n{_ASKED}",
            {"userlist.txt": files["userlist.txt"].splitlines()[2] + '\n"bob" ""\n'},
        ),
        "limits": Setting(
            f"{databases}\n[users]\nann = pool_mode=session\n{_COMMON}auth_type = trust\n",
            {"userlist.txt": files["userlist.txt"].splitlines()[2] + '\n"bob" ""\n'},
        ),
        "hba": Setting(
            f"{databases}\n{_USERS}\n{_COMMON}auth_type = hba\nauth_hba_file = {{directory}}/hba.conf\n"
            "auth_ident_file = {directory}/ident.conf\n",
            {**files, "hba.conf": _HBA, "ident.conf": _IDENT, "names": "clara\n"},
        ),
        # Passwords of ann, bob and mira are asked for with a function, as clara; none of theirs is in the file.
        "asking": Setting(
            f"{databases}\n{_COMMON}auth_type = scram-sha-256\n{_ASKED}",
            {"userlist.txt": files["userlist.txt"].splitlines()[2] + "\n"},
        ),
    }


@attrs.frozen
class Scenario:
    """A script for one of the stages.

    Attributes:
        name: in the list of differences.
        stage: the settings file.
        script: what clients do.
    """

    name: str
    stage: str
    script: str


_COMMANDS: Final = """\
SHOW HELP | SHOW nothing | SHOW | SHOW STATE | SELECT state | show state; | SHOW client_encoding | SHOW timezone
SHOW datestyle | SHOW standard_conforming_strings | SHOW default_transaction_isolation | SHOW all | SELECT 1 | nonsense
PAUSE nope | PAUSE pgbouncer | RESUME | RESUME nope | RESUME app | RESUME pgbouncer | DISABLE | DISABLE nope
DISABLE pgbouncer | ENABLE | ENABLE nope | ENABLE app | ENABLE pgbouncer | RECONNECT nope | RECONNECT pgbouncer
RECONNECT | RECONNECT app | KILL nope | KILL pgbouncer | KILL_CLIENT | KILL_CLIENT 999999 | KILL_CLIENT x
WAIT_CLOSE | WAIT_CLOSE app | WAIT_CLOSE nope | WAIT_CLOSE pgbouncer | SUSPEND now | SHUTDOWN now | RELOAD now | RELOAD
SET nothing = 1 | SET max_client_conn = 55 | SET max_client_conn = x | SET max_client_conn = '55' | SET listen_port = 1
SET pool_mode = nonsense | SET pool_mode = transaction | SET pool_mode to 'transaction' | SET client_encoding = 'UTF8'
SET application_name = 'x' | SET extra_float_digits = 3 | SET timezone = 'UTC' | SET max_client_conn
SET auth_type = no | SET log_connections = 1 | SET log_connections = 0 | SET admin_users = 'ann'
SET stats_users = 'bob'
BEGIN | COMMIT | SHOW STATS; SHOW POOLS | SHOW "state" | PAUSE "no such"
"""

_CONSOLE: Final = (
    Scenario(
        "console: pause and resume",
        "trust",
        "console: PAUSE\nconsole: PAUSE\nconsole: KILL\nconsole: SUSPEND\n"
        "console: SHOW STATE\nconsole: RESUME\nconsole: RESUME",
    ),
    Scenario(
        "console: pause a database",
        "trust",
        "console: PAUSE app\nconsole: PAUSE app\nconsole: SUSPEND\nconsole: RESUME app\nconsole: RESUME app",
    ),
    Scenario(
        "console: suspend and resume",
        "trust",
        "console: SUSPEND\nconsole: SHOW STATE\nconsole: SUSPEND\n"
        "console: PAUSE\nconsole: RESUME\nconsole: SHOW STATE",
    ),
    Scenario(
        "console: disable and enable",
        "trust",
        "console: DISABLE app\na connect app ann\nconsole: ENABLE app\na connect app ann",
    ),
    Scenario(
        "console: pause holds clients",
        "trust",
        "a connect app ann\nconsole: PAUSE app\na& SELECT 1\nconsole: RESUME app\na?",
    ),
    Scenario(
        "console: pause waits for a transaction",
        "trust",
        "a connect app ann\na: BEGIN\nconsole& PAUSE app\n"
        "a: SELECT 1\na: COMMIT\nconsole?\nconsole: RESUME app",
    ),
    Scenario(
        "console: kill", "trust", "a connect app ann\na: SELECT 1\nconsole: KILL app\na!\nconsole: RESUME app"
    ),
    Scenario(
        "console: kill in a transaction",
        "trust",
        "a connect app ann\na: BEGIN\nconsole: KILL app\na!\nconsole: RESUME app",
    ),
    Scenario("console: reader shows", "trust", "b connect pgbouncer bob\nb: SHOW STATE\nb: SHOW FDS"),
    *(
        Scenario(f"console: reader may not {command}", "trust", f"b connect pgbouncer bob\nb: {command}")
        for command in (
            "PAUSE",
            "RELOAD",
            "KILL app",
            "SET max_client_conn = 5",
            "SHUTDOWN",
            "RECONNECT",
            "SUSPEND",
            "KILL_CLIENT 1",
            "WAIT_CLOSE",
            "DISABLE app",
            "RESUME",
        )
    ),
    Scenario("console: somebody else", "trust", "c connect pgbouncer clara"),
    Scenario("console: unknown user", "trust", "c connect pgbouncer nobody"),
    Scenario("console: Unix socket", "trust", "c connect pgbouncer ann host=unix\nc: SHOW STATE"),
    Scenario("console: with a password", "md5", "c connect pgbouncer ann\nc: SHOW STATE"),
    Scenario("console: with a wrong password", "md5", "c connect pgbouncer ann password=wrong"),
    Scenario("console: with SCRAM", "scram", "c connect pgbouncer ann\nc: SHOW STATE"),
    Scenario(
        "console: when all places are taken",
        "full",
        "a connect app ann\nb connect app bob\nc connect pgbouncer ann\nc: SHOW STATE",
    ),
)

_LOGINS: Final = (
    *(
        Scenario(f"login: {kind}, {user} {password}".strip(), kind, f"a connect app {user} {password}\n")
        for kind in ("trust", "plain", "md5", "scram")
        for user, password in (("ann", ""), ("ann", "password=no"), ("nobody", ""), ("mira", ""))
    ),
    Scenario("login: unknown database", "trust", "a connect nothing ann"),
    Scenario("login: unknown database, wrong password", "md5", "a connect nothing ann password=no"),
    Scenario("login: database that the server does not have", "trust", "a connect missing ann"),
    Scenario("login: unknown startup parameter", "trust", "a connect app ann work_mem=4MB"),
    Scenario(
        "login: ignored startup parameter", "trust", "a connect app ann extra_float_digits=1\na: SELECT 1"
    ),
    Scenario(
        "login: tracked startup parameter",
        "trust",
        "a connect app ann application_name=me\na: SHOW application_name",
    ),
    Scenario(
        "login: two tracked startup parameters",
        "trust",
        "a connect app ann timezone=UTC datestyle=ISO\na: SHOW timezone",
    ),
    Scenario(
        "login: bad value of a tracked parameter",
        "trust",
        "a connect app ann timezone=Nowhere/Land\na: SELECT 1",
    ),
    Scenario("login: Unix socket", "trust", "a connect app ann host=unix\na: SELECT 1"),
    Scenario("login: replication that is none", "trust", "a connect app ann replication=no\na: SELECT 1"),
    Scenario("login: replication that is nonsense", "trust", "a connect app ann replication=maybe"),
)

_AUTHENTICATION: Final = (
    *(
        Scenario(f"hba: {what}", "hba", f"a connect {what}")
        for what in (
            "app ann",
            "app ann password=no",
            "app clara",
            "app bob",
            "app bob password=no",
            "app mira",
            "tiny ann",
            "tiny bob",
            "session ann password=no",
            "session bob",
            "renamed ann",
            "forced ann",
            "nothing ann",
            "app nobody",
            "app ann host=unix",
            "app bob host=unix",
            "app clara host=unix",
            "app ann replication=yes",
            "pgbouncer ann",
            "pgbouncer ann replication=yes",
        )
    ),
    Scenario("known: a secret that the server has", "locked", "a connect forced ann"),
    Scenario("known: an empty secret in the file, another on the server", "locked", "a connect forced bob"),
    Scenario("known: the same in the console", "locked", "a connect pgbouncer bob"),
    Scenario("known: in section users alone", "limits", "a connect forced ann"),
    Scenario("known: an empty secret in the file, with trust", "limits", "a connect forced bob"),
    Scenario("any: whoever", "any", "a connect forced whoever\na: SELECT current_user"),
    Scenario("any: a database without a user", "any", "a connect app ann"),
    Scenario("any: the console", "any", "a connect pgbouncer whoever\na: SHOW STATE"),
    Scenario("asking: a password", "asking", "a connect forced ann\na: SELECT current_user"),
    Scenario("asking: a wrong password", "asking", "a connect forced ann password=no"),
    Scenario("asking: no password", "asking", "a connect forced bob"),
    Scenario("asking: somebody else", "asking", "a connect forced mira"),
    Scenario("asking: somebody in the file", "asking", "a connect forced clara\na: SELECT current_user"),
    Scenario("asking: the server's password", "asking", "a connect app ann\na: SELECT current_user"),
)

_POOLS: Final = (
    Scenario("pool: a query", "trust", "a connect app ann\na: SELECT current_user, current_database()"),
    Scenario("pool: forced user", "trust", "a connect forced ann\na: SELECT current_user"),
    Scenario(
        "pool: another name on the server", "trust", "a connect renamed ann\na: SELECT current_database()"
    ),
    Scenario(
        "pool: preset parameters",
        "trust",
        "a connect set ann\na: SHOW application_name\na: SHOW datestyle\na: SHOW client_encoding",
    ),
    Scenario("pool: connect_query", "trust", "a connect greeted ann\na: SHOW work_mem"),
    Scenario("pool: an error", "trust", "a connect app ann\na: SELECT nothing\na: SELECT 1"),
    Scenario("pool: an empty query", "trust", "a connect app ann\na: ;"),
    Scenario("pool: several statements", "trust", "a connect app ann\na: SELECT 1; SELECT 2"),
    Scenario(
        "pool: transactions",
        "trust",
        "a connect app ann\na: BEGIN\na: SELECT nothing\na: SELECT 1\na: ROLLBACK",
    ),
    Scenario(
        "pool: a transaction in statement mode", "trust", "a connect statement ann\na: SELECT 1\na: BEGIN\na!"
    ),
    Scenario(
        "pool: session mode keeps settings",
        "trust",
        "a connect session ann\na: SET work_mem = '5MB'\n"
        "a: SHOW work_mem\na.\nb connect session ann\nb: SHOW work_mem",
    ),
    Scenario(
        "pool: pool mode of a user", "trust", "c connect app clara\nc: SET work_mem = '5MB'\nc: SHOW work_mem"
    ),
    Scenario(
        "pool: reset after a session",
        "trust",
        "a connect session ann\na: PREPARE p AS SELECT 1\na.\nb connect session ann\nb: EXECUTE p",
    ),
    Scenario(
        "pool: cancel",
        "trust",
        "a connect app ann\na& SELECT pg_sleep(20), {port}\nb connect app ann\n"
        "b: DO $$BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20), {port}'"
        " AND state = 'active') LOOP PERFORM pg_sleep(0.01), pg_stat_clear_snapshot(); END LOOP; END$$\n"
        "a cancel\na?\na: SELECT 1",
    ),
    Scenario(
        "pool: cancel when nothing is asked", "trust", "a connect app ann\na: SELECT 1\na cancel\na: SELECT 2"
    ),
    Scenario(
        "pool: a server that goes",
        "trust",
        "a connect app ann\na: SELECT pg_terminate_backend(pg_backend_pid())\nb connect app ann\nb: SELECT 1",
    ),
    Scenario("pool: copy", "trust", "a connect app ann\na: COPY (SELECT 1) TO STDOUT"),
    Scenario("pool: notice", "trust", "a connect app ann\na: DO $$BEGIN RAISE NOTICE 'told'; END$$"),
)

_LIMITS: Final = (
    Scenario(
        "limit: max_client_conn", "full", "a connect app ann\nb connect app bob\nd connect app ann\na.\n"
    ),
    Scenario(
        "limit: max_client_conn, unknown user",
        "full",
        "a connect app ann\nb connect app bob\nd connect app nobody",
    ),
    Scenario(
        "limit: max_client_conn, the console counts",
        "full",
        "c connect pgbouncer ann\na connect app ann\nb connect app bob\nd connect pgbouncer clara",
    ),
    Scenario(
        "limit: pool_size",
        "trust",
        "a connect tiny ann\nb connect tiny ann\na: BEGIN\nb& SELECT 1\na: COMMIT\nb?",
    ),
    Scenario(
        "limit: max_db_connections",
        "trust",
        "a connect capped ann\na: BEGIN\nd connect capped mira patience=1\nd& SELECT 1\na: COMMIT\na.\nd?",
    ),
    Scenario("limit: max_db_client_connections", "trust", "a connect crowded ann\nb connect crowded ann"),
    Scenario(
        "limit: max_user_client_connections",
        "trust",
        "a connect app bob\nb connect app bob\nd connect app bob",
    ),
    Scenario(
        "limit: max_user_connections",
        "trust",
        "c connect app clara\nc: SELECT 1\nd connect renamed clara patience=1\nd& SELECT 1\nc.\nd?",
    ),
)

_TIMEOUTS: Final = (
    Scenario("timeout: query_timeout", "timeouts", "a connect app ann\na& SELECT pg_sleep(20)\na!"),
    Scenario("timeout: idle_transaction_timeout", "timeouts", "a connect app ann\na: BEGIN\na!"),
    Scenario(
        "timeout: query_wait_timeout",
        "timeouts",
        "a connect brief ann\na: SELECT 1\nb connect brief ann\n"
        "a& BEGIN; SELECT pg_sleep(0.9)\nb& SELECT 1\nb!",
    ),
    Scenario(
        "timeout: query_wait_timeout while paused",
        "timeouts",
        "a connect app ann\na: SELECT 1\nconsole: PAUSE\na& SELECT 1\na!\nconsole: RESUME",
    ),
    Scenario(
        "timeout: a login while paused",
        "timeouts",
        "a connect app ann\nconsole: PAUSE\nb connect app ann\nd connect renamed ann patience=5\nconsole: RESUME",
    ),
    Scenario("timeout: client_idle_timeout", "timeouts", "a connect app ann\na: SELECT 1\na!"),
)

SCENARIOS: Final = (
    *_CONSOLE,
    *_LOGINS,
    *_AUTHENTICATION,
    *_POOLS,
    *_LIMITS,
    *_TIMEOUTS,
    # Last: some change settings.
    *(
        Scenario(f"command: {command}", "trust", f"console: {command}")
        for line in _COMMANDS.splitlines()
        for command in map(str.strip, line.split(" | "))
    ),
)

_VIEWS: Final = """
CLIENTS SERVERS SOCKETS ACTIVE_SOCKETS POOLS PEERS PEER_POOLS LISTS USERS DATABASES CONFIG FDS DNS_HOSTS DNS_ZONES
STATS STATS_TOTALS STATS_AVERAGES TOTALS MEM STATE VERSION
"""
VIEWS: Final = _VIEWS.split()
"""Their columns are compared."""

ROWS: Final = ("DATABASES", "USERS", "LISTS", "STATE", "VERSION", "PEERS", "TOTALS")
"""And of these, their rows' names: the first column."""
