"""A real PostgreSQL with TLS, and with roles that its pg_hba.conf lets in with TLS alone, or without."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

from tests.support.certificates import CA, issue
from tests.support.postgres import PostgresCluster, Role

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

COVERED: Final = Role("covered", "covered's secret", "scram-sha-256")
"""Let in with TLS alone."""

OPEN: Final = Role("open", "open's secret", "scram-sha-256")
"""Let in without TLS alone."""

CERTIFIED: Final = Role("certified", "certified's secret", "scram-sha-256")
"""Let in with a certificate of the authority, besides the password."""

_HBA: Final = """\
hostssl all covered 127.0.0.1/32 scram-sha-256
host all covered 127.0.0.1/32 reject
hostnossl all open 127.0.0.1/32 scram-sha-256
host all open 127.0.0.1/32 reject
hostssl all certified 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
"""


class TlsPostgres(PostgresCluster):
    """A cluster with TLS; its certificate is for localhost, and not for 127.0.0.1."""

    def switch_on(self, directory: Path) -> None:
        """Restart with TLS.

        Args:
            directory: for the certificate, on its way to the cluster.
        """
        for role in (COVERED, OPEN, CERTIFIED):
            quoted = role.password.replace("'", "''")
            self.sql(f"CREATE ROLE {role.name} LOGIN PASSWORD '{quoted}'")
            self.sql(f"GRANT pg_signal_backend, pg_read_all_stats TO {role.name}")
        hba = self._data / "pg_hba.conf"
        hba.write_text(_HBA + hba.read_text())
        with (self._data / "postgresql.conf").open("a") as config:
            config.write("ssl = on\nssl_ca_file = 'root.crt'\n")
        self.show(directory, "localhost")
        self.stop()
        self.start()

    def show(self, directory: Path, *names: str, ca: trustme.CA = CA) -> None:
        """Give it a certificate for some names; for connections to come, after a reload."""
        files = issue(directory, *names, ca=ca)
        for source, name in ((files.cert, "server.crt"), (files.key, "server.key"), (files.ca, "root.crt")):
            target = self._data / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if self._account is not None:
                os.chown(target, self._account.pw_uid, self._account.pw_gid)
