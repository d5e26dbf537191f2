"""The texts of a service of systemd's: its unit, its user, and settings to begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

NOTIFY_RELOAD: Final = 253
"""The first systemd with ``Type=notify-reload``."""

TELLS_OF_STORE: Final = 254
"""The first systemd that tells a service of its store for descriptors (``$FDSTORE``)."""

_STORE: Final = 16

_UNIT: Final = """\
# Written by `hyperpool install-service`, which will write it again: changes belong into a drop-in
# (`systemctl edit hyperpool`). docs/operations.md explains each line.

[Unit]
Description=hyperpool, a connection pooler for PostgreSQL
Wants=network-online.target
After=network-online.target postgresql.service

[Service]
{type}
NotifyAccess=main
ExecStart={command} serve {config}
User={user}
Group={user}
Restart=on-failure
RestartSec=1s
TimeoutStartSec=120s
TimeoutStopSec=90s
WatchdogSec=30s
# Servers of embedded databases are not signalled: hyperpool stops them.
KillMode=mixed
LimitNOFILE=65536

# Secrets: files that only root can read. In the settings: password_file: credential:app
#LoadCredential=app:/etc/hyperpool/credentials/app

# /run/hyperpool: the control socket, and the Unix socket of clients. /var/lib/hyperpool: embedded databases.
RuntimeDirectory=hyperpool
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=restart
StateDirectory=hyperpool
StateDirectoryMode=0700
# The listening sockets stay open while the service is restarted: who connects meanwhile waits.
{store}

# What the process may do: talk to others, and nothing else.
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
PrivateDevices=yes
PrivateMounts=yes
PrivateTmp=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# For unix_socket_group.
SystemCallFilter=@chown
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

SETTINGS: Final = """\
# Settings of hyperpool, as `hyperpool install-service` has written them to begin with. Names and defaults are
# pgbouncer's wherever pgbouncer has the setting; docs/settings.md lists all of them.
#
#   hyperpool check {config}
#                                   say what is wrong here, or what it means
#   hyperpool doctor {config} NAME
#                                   go the way to the server of database NAME, and say where it fails
#   systemctl reload hyperpool      read this file again; a mistake changes nothing, and is logged
#   hyperpool restart               a new process, with what is installed now; no client notices
#
# Durations: 30 (seconds), "500ms", "30s", "5m", "1h". Sizes: 65536 (bytes), "64KiB", "1MiB".

pooler:
  # Where clients come in; "*" is all addresses. On this machine: psql -h /run/hyperpool -p 6432
  listen_addr: 127.0.0.1
  listen_port: 6432
  unix_socket_dir: /run/hyperpool

  # TLS for clients. The service has to be able to read the key.
  #client_tls_sslmode: require
  #client_tls_cert_file: /etc/hyperpool/tls.crt
  #client_tls_key_file: /etc/hyperpool/tls.key

  # How clients prove who they are; who they are stands in `users` below.
  auth_type: scram-sha-256

  # Who may use the console: psql -h /run/hyperpool -p 6432 -U admin hyperpool -c 'SHOW POOLS'
  #admin_users: [admin]

  # When a client gives its server connection back: after its session, its transaction or its statement.
  pool_mode: transaction

  # Clients at a time, and server connections per database and user. Keep the sum of pools well below PostgreSQL's
  # max_connections; during a restart, there are those of two processes.
  max_client_conn: 1000
  default_pool_size: 20

  # How long a client waits for a server connection before it is turned away.
  query_wait_timeout: 30s

  # At the end of a process: the longest wait for its clients, and how many idle ones are closed per second meanwhile.
  drain_timeout: 60s
  drain_rate: 20

databases:
  # The name that clients ask for; "*" stands for every other name.
  "*":
    host: 127.0.0.1
    port: 5432

users:
  # hyperpool logs in to PostgreSQL as the client's user, with the same password. A file holds it:
  #   install -m 0640 -g {user} /dev/stdin {directory}/app.password     and type it, and Ctrl-D
  # or a credential of systemd's, in a file that only root can read: `password_file: credential:app` here, and in
  # `systemctl edit hyperpool`:
  #   [Service]
  #   LoadCredential=app:{directory}/credentials/app
  app:
    password_file: app.password

# A dashboard, metrics and health, for this machine alone: http://127.0.0.1:6480/
#http: {{}}
"""

SYSUSERS: Final = 'u {user} - "hyperpool connection pooler" /var/lib/hyperpool\n'
"""For sysusers.d(5)."""


def unit(command: str, config: Path, user: str, version: int) -> str:
    """The unit.

    Args:
        command: the program, as ``ExecStart=`` wants it.
        config: the settings file.
        user: who runs it.
        version: of systemd.
    """
    kind = "Type=notify-reload"
    if version < NOTIFY_RELOAD:
        kind = "Type=notify\nExecReload=/bin/kill -HUP $MAINPID"
    store = f"FileDescriptorStoreMax={_STORE}"
    if version < TELLS_OF_STORE:
        store += f"\nEnvironment=FDSTORE={_STORE}"
    return _UNIT.format(type=kind, command=command, config=config, user=user, store=store)


def settings(config: Path, user: str) -> str:
    """The settings to begin with.

    Args:
        config: where they will stand.
        user: who will read them.
    """
    return SETTINGS.format(config=config, directory=config.parent, user=user)
