"""Settings: what can be set, loading it from YAML, and finding everything that is wrong with it.

`load` is the way in. `Settings.pool_for` resolves what applies to one pool.
"""

from hyperpool.config.entries import DatabaseSettings, PeerSettings, UserSettings
from hyperpool.config.kinds import AuthType, ChannelBinding, PoolMode, SessionState, SslMode, SslNegotiation
from hyperpool.config.loader import load
from hyperpool.config.model import PoolerSettings
from hyperpool.config.secret import Secret
from hyperpool.config.settings import AuthSource, PoolSettings, Settings

__all__ = [
    "AuthSource",
    "AuthType",
    "ChannelBinding",
    "DatabaseSettings",
    "PeerSettings",
    "PoolMode",
    "PoolSettings",
    "PoolerSettings",
    "Secret",
    "SessionState",
    "Settings",
    "SslMode",
    "SslNegotiation",
    "UserSettings",
    "load",
]
