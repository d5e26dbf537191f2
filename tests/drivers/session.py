"""The cells about what a session keeps from one transaction to the next, for every Python driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from tests.drivers.client import Client
    from tests.drivers.common import Connect
    from tests.drivers.site import Site

_SHOW: Final = (
    "SELECT current_setting('search_path'), current_setting('timezone'), current_setting('application_name')"
)


class SessionCells:
    """The cells of every Python driver that need several transactions on several servers.

    Attributes:
        kind: how the driver is spoken to.
    """

    kind: ClassVar[type[Client]]

    def test_statement_timeout(self, site: Site, connect: Connect) -> None:
        """It ends what takes too long, in its own transaction and in later ones, and not for other clients."""
        client, other = connect(), connect()
        client.rows("SET statement_timeout = '250ms'")
        for _ in range(3):
            site.change_servers()
            assert client.one("SHOW statement_timeout") == "250ms"
            assert other.one("SHOW statement_timeout") == "0"
        with client.fails("57014"):
            client.rows("SELECT pg_sleep(20)")
        site.change_servers()
        with client.fails("57014"), client.transaction():
            client.rows("SELECT pg_sleep(CAST(? AS int))", 20)
        assert other.rows("SELECT 1 FROM pg_sleep(0.3)") == [(1,)]
        client.rows("RESET statement_timeout")
        site.change_servers()
        assert client.one("SHOW statement_timeout") == "0"

    def test_temporary_tables(self, site: Site, connect: Connect) -> None:
        """Two clients have one each under the same name, another has none, and nor have later clients."""
        owners = [connect(), connect()]
        stranger = connect()
        for n, owner in enumerate(owners):
            owner.rows("CREATE TEMPORARY TABLE notes (n int)")
            owner.rows("INSERT INTO notes VALUES (?)", n)
        for turn in range(1, 6):
            site.change_servers()
            for n, owner in enumerate(owners):
                with owner.transaction():
                    owner.rows("INSERT INTO notes VALUES (?)", turn * 10 + n)
                expected = [(later * 10 + n,) for later in range(turn + 1)]
                assert owner.rows("SELECT n FROM notes ORDER BY n") == expected
            assert stranger.one("SELECT CAST(to_regclass('notes') AS text)") is None
        for owner in owners:
            owner.close()
        successors = [connect() for _ in range(3)]
        for _ in range(3):
            site.change_servers()
            for successor in successors:
                assert successor.one("SELECT CAST(to_regclass('notes') AS text)") is None

    def test_temporary_tables_that_go(self, site: Site, connect: Connect) -> None:
        """One that is dropped at the end of its transaction, or with the transaction undone, is gone."""
        client = connect()
        for _ in range(3):
            site.change_servers()
            with client.transaction():
                client.rows("CREATE TEMPORARY TABLE scratch ON COMMIT DROP AS SELECT 1 AS n")
                assert client.one("SELECT n FROM scratch") == 1
            with client.undone():
                client.rows("CREATE TEMPORARY TABLE scratch (n int)")
            assert client.one("SELECT CAST(to_regclass('scratch') AS text)") is None

    def test_settings(self, site: Site, connect: Connect) -> None:
        """What two clients SET in a transaction, each sees in all that follow; a third sees its own defaults."""
        clients = [connect() for _ in range(3)]
        defaults = clients[2].rows(_SHOW)
        expected = [("pg_catalog", "Asia/Tokyo", "first"), ("public", "America/Lima", "second"), *defaults]
        for client, (path, zone, name) in zip(clients[:2], expected[:2], strict=True):
            with client.transaction():
                client.rows(f"SET search_path TO {path}")
                client.rows(f"SET TIME ZONE '{zone}'")
                client.rows("SELECT set_config('application_name', ?, false)", name)
                client.rows(f"SET hyper.tenant = '{name}'")
        for _ in range(6):
            site.change_servers()
            for client, values in zip(clients, expected, strict=True):
                with client.transaction():
                    assert client.rows(_SHOW) == [values]
                assert client.one("SELECT right(CAST(now() AS text), 3) = '+09'") is (
                    values[1] == "Asia/Tokyo"
                )
        for client, (_, _, name) in zip(clients[:2], expected[:2], strict=True):
            assert client.one("SELECT current_setting('hyper.tenant')") == name
        assert clients[2].one("SELECT current_setting('hyper.tenant', true)") in {None, ""}

    def test_settings_of_a_transaction(self, site: Site, connect: Connect) -> None:
        """SET LOCAL ends with its transaction, SET with one that is rolled back, and RESET brings defaults back."""
        client = connect()
        client.rows("SET work_mem = '5MB'")
        with client.transaction():
            client.rows("SET LOCAL work_mem = '6MB'")
            assert client.one("SHOW work_mem") == "6MB"
        site.change_servers()
        assert client.one("SHOW work_mem") == "5MB"
        with client.undone():
            client.rows("SET work_mem = '7MB'")
        site.change_servers()
        assert client.one("SHOW work_mem") == "5MB"
        client.rows("RESET work_mem")
        site.change_servers()
        assert client.one("SHOW work_mem") == "4MB"

    def test_settings_from_the_start(self, site: Site, connect: Connect) -> None:
        """Settings that come with the login hold in all transactions; others do not have them."""
        client = connect(search_path="pg_catalog", statement_timeout="19s", application_name="starter")
        other = connect()
        for _ in range(4):
            site.change_servers()
            assert client.rows(_SHOW + ", current_setting('statement_timeout')") == [
                ("pg_catalog", "UTC", "starter", "19s")
            ]
            assert other.one("SHOW statement_timeout") == "0"
            assert other.one("SHOW search_path") == '"$user", public'

    def test_role(self, site: Site, connect: Connect) -> None:
        """SET ROLE holds in later transactions and for this client alone; rolled back it did not happen."""
        client, other = connect(), connect()
        client.rows("SET ROLE pg_read_all_stats")
        for _ in range(4):
            site.change_servers()
            assert client.one("SELECT CAST(current_user AS text)") == "pg_read_all_stats"
            assert other.one("SELECT CAST(current_user AS text)") == site.role.name
            with other.undone():
                other.rows("SET ROLE pg_signal_backend")
        client.rows("RESET ROLE")
        site.change_servers()
        assert client.one("SELECT CAST(current_user AS text)") == site.role.name

    def test_advisory_locks(self, site: Site, connect: Connect) -> None:
        """A session's lock keeps others out in all transactions until it is unlocked; then another has it."""
        key = 20_240_229
        client, other = connect(), connect()
        client.rows("SELECT 1 FROM pg_advisory_lock(?)", key)
        for _ in range(4):
            site.change_servers()
            assert other.one("SELECT pg_try_advisory_lock(?)", key) is False
            with client.transaction():
                assert client.one("SELECT pg_try_advisory_lock(?)", key) is True
            assert client.one("SELECT pg_advisory_unlock(?)", key) is True
        assert other.one("SELECT pg_try_advisory_lock(?)", key) is False
        assert client.one("SELECT pg_advisory_unlock(?)", key) is True
        site.change_servers()
        assert other.one("SELECT pg_try_advisory_lock(?)", key) is True
        assert client.one("SELECT pg_try_advisory_lock(?)", key) is False
        other.close()
        site.change_servers()
        client.rows("SELECT 1 FROM pg_advisory_lock(?)", key)
        assert client.one("SELECT pg_advisory_unlock(?)", key) is True
