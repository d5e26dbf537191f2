"""Where settings come from besides the file itself: environment variables and other files."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE: Final = re.compile(r"\$?\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unavailable(ValueError):
    """Something outside of the file cannot be had; the message says what, and the remedy, and holds no secret."""


class Substituted(str):
    """A text from environment variables: as these hold nothing but text, it may also stand for a number."""

    __slots__ = ()


@attrs.frozen
class Source:
    """The surroundings of one settings file.

    Attributes:
        directory: the file's own; relative paths start here.
        environ: the environment variables.
    """

    directory: Path
    environ: Mapping[str, str] = attrs.field(repr=False)

    def substitute(self, text: str) -> str:
        """Replace each ``${NAME}`` by the environment variable's value; ``$${`` stands for a plain ``${``.

        Raises:
            Unavailable: a variable is not set, or ``${`` is not followed by a name and ``}``.
        """
        if "${" not in text:
            return text
        return Substituted(_REFERENCE.sub(self._value, text))

    def _value(self, match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        name, end = match.groups()
        if not end or not _VARIABLE.fullmatch(name):
            raise Unavailable("found '${' without a name and '}' behind it; a plain '${' is written '$${'")
        if name not in self.environ:
            raise Unavailable(f"environment variable {name} is not set: set it, or give the value here")
        return self.environ[name]

    def anchor(self, path: str) -> Path:
        """The absolute path of a file that the settings name; ``~`` at its beginning is a home directory.

        Raises:
            Unavailable: that home directory is not known.
        """
        try:
            return self.directory / Path(path).expanduser()
        except RuntimeError:
            raise Unavailable("the home directory is not known: give the path without '~'") from None

    def read(self, path: str) -> str:
        """Read a file that the settings name; bytes that are not UTF-8 become lone surrogates (PEP 383).

        Args:
            path: an absolute path.

        Raises:
            Unavailable: it cannot be read; the message does not hold the path, in whose place a password may stand.
        """
        try:
            return Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape")
        except OSError as error:
            reason = error.strerror or "unknown reason"
            raise Unavailable(
                f"cannot read the file that is named here ({reason}); hyperpool's user must be able to read it, and "
                f"a relative path starts at {str(self.directory)!r}"
            ) from None

    def read_secret(self, path: str) -> Secret:
        """Read a file that holds a secret and nothing else; one newline at its end does not count.

        Args:
            path: an absolute path.

        Raises:
            Unavailable: it cannot be read, is empty or holds a zero byte.
        """
        text = self.read(path).removesuffix("\n").removesuffix("\r")
        if not text or "\0" in text:
            fault = "holds a zero byte" if text else "is empty"
            raise Unavailable(
                f"the file that is named here {fault}; put the secret into it, and nothing else"
            )
        return Secret(text)


def default_state_dir(environ: Mapping[str, str], directory: Path) -> Path:
    """Where embedded databases live when the settings do not say it.

    In this order: systemd's ``$STATE_DIRECTORY``; ``.state`` beside the settings file, if it is there, as after
    ``make run``, so that every command finds what that one has made; the XDG base directory specification's
    ``$XDG_STATE_HOME``, and that one's default.

    Args:
        environ: the environment variables.
        directory: the settings file's own.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given).absolute()
    beside = directory.absolute() / ".state"
    if beside.is_dir():
        return beside
    base = Path(environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path(environ.get("HOME") or _home()).absolute() / ".local" / "state"
    return base / "hyperpool"


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
