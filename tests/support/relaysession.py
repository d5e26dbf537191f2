"""A server's session, as far as a relay can tell it from PostgreSQL's: it runs what fits the words that it knows.

Unlike `pgmodel`, it knows the pooler's own questions, and what they ask for; and it errs at random.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Final

from hyperpool.relay import catalog, session
from tests.support.pglanguage import frame, split_frames
from tests.support.relaystage import REPORTED, answers

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULTS: Final = {
    **REPORTED,
    "DateStyle": "ISO",
    "work_mem": "4MB",
    "statement_timeout": "0",
    "search_path": "public",
    "standard_conforming_strings": "on",
    "role": "none",
    "session_authorization": "u",
}
"""What a session begins with; a name with a dot that is not set has no value."""

FUNCTIONS: Final = ("stateful",)
"""Functions that set ``app.user``. Whoever asks is told now and then that a table does so, too."""

_CANONICAL: Final = {name.lower(): name for name in DEFAULTS}
_TELLS: Final = {name.lower() for name in REPORTED}
_LIST: Final = re.compile(r"ARRAY\[([^\]]*)\]::pg_catalog\.text")
_SET: Final = re.compile(r"(?is)set\s+(?:session\s+|(local)\s+)?\"?([\w.]+?)\"?\s*(?:=|to)\s*(.*)")
_SET_CONFIG: Final = re.compile(r"(?i)set_config\('([\w.]+)',\s*(?: E)?'([^']*)',\s*(true|false)")
_PINS: Final = "SELECT " + ",".join(session._TRUTHS.values())
_ENDS: Final = ("commit", "rollback", "end", "abort")
_CREATES: Final = {
    "create temp": 0,
    "listen": 1,
    "select pg_advisory_lock": 2,
    "declare": 3,
    "prepare": 4,
}
_DROPS: Final = {
    "drop table": 0,
    "unlisten": 1,
    "select pg_advisory_unlock": 2,
    "close": 3,
}
_TAGS: Final = {
    "select": "SELECT 1",
    "insert": "INSERT 0 1",
    "update": "UPDATE 1",
    "create": "CREATE TABLE",
    "alter": "ALTER TABLE",
    "drop": "DROP TABLE",
    "start": "START TRANSACTION",
    "end": "COMMIT",
    "abort": "ROLLBACK",
    "do": "DO",
}


class _Failure(Exception):
    """A statement fails: with this error."""


class Session:
    """One session.

    Attributes:
        ended: it is over, once what it has said has arrived.
        doomed: a cancel request has come: the next statement fails.
    """

    def __init__(self) -> None:
        self.ended = False
        self.doomed = False
        self._input = b""
        self._settings = dict(DEFAULTS)
        self._told = dict(self._settings)
        self._truths = [False] * 5
        self._before: tuple[dict[str, str], list[bool]] | None = None
        self._block = "I"
        self._statements: dict[str, str] = {}
        self._portals: dict[str, str] = {}
        self._skipping = False
        self._copying = ""
        self._rest: list[str] = []
        self._luck = random.Random(0)

    def receive(self, data: bytes) -> None:
        """Something has come; it waits for `answer`."""
        self._input += data

    @property
    def waits(self) -> bool:
        """Whether there is a message to be answered."""
        return bool(split_frames(self._input)[0]) and not self.ended

    def answer(self, most: int, luck: int) -> bytes:
        """Answer the next messages.

        Args:
            most: so many at most.
            luck: what happens at random.
        """
        self._luck = random.Random(luck)
        frames, rest = split_frames(self._input)
        said = b""
        for one in frames[:most]:
            if self.ended:
                break
            said += self._handle(chr(one[0]), one[5:])
        self._input = b"".join(frames[most:]) + rest
        return said

    # -- messages ----------------------------------------------------------------------------------------------------

    def _handle(self, kind: str, body: bytes) -> bytes:
        parts = [part.decode("latin-1") for part in body.split(b"\0")]
        if kind == "X":
            self.ended = True
            return b""
        if self._copying:
            return self._copy(kind)
        if kind == "S":
            self._skipping = False
            self._commit()
            self._portals.clear()
            return self._ready()
        if self._skipping or kind in "Hdcf":
            return b""
        if self._before is None:
            self._before = dict(self._settings), list(self._truths)
        try:
            if kind == "Q":
                self._statements.pop("", None)
                return self._query(parts[0])
            if kind == "F":
                return frame(b"V", b"\xff" * 4) + self._end()
            return self._extended(kind, parts)
        except _Failure as failure:
            self._fail()
            self._skipping = kind not in "QF"
            return answers(str(failure)) + (b"" if self._skipping or self.ended else self._end())

    def _extended(self, kind: str, parts: list[str]) -> bytes:
        name = parts[0]
        if kind == "P":
            return self._parse(name, parts[1])
        if kind == "B":
            text = self._statements.get(parts[1])
            if text is None:
                raise _Failure(f'E26000 prepared statement "{parts[1]}" does not exist')
            self._usable(text)
            if parts[1].startswith("HYPERPOOL_") and self._chance(4):
                del self._statements[parts[1]]
                raise _Failure("E0A000 cached plan must not change result type @RevalidateCachedQuery")
            self._portals[name] = text
            return answers("2")
        if kind == "D":
            if name[0] == "S" and name[1:] not in self._statements:
                raise _Failure(f'E26000 prepared statement "{name[1:]}" does not exist')
            text = (self._statements if name[0] == "S" else self._portals).get(name[1:])
            if text is None:
                raise _Failure("E34000 no such portal")
            told = "T" if text.lower().startswith(("select", "show")) else "n"
            return answers("t|" + told if name[0] == "S" else told)
        if kind == "C":
            (self._statements if name[0] == "S" else self._portals).pop(name[1:], None)
            return answers("3")
        text = self._portals.get(name, "")
        if name not in self._portals:
            raise _Failure("E34000 no such portal")
        said = self._run(text, described=True)
        if text.lower().startswith("copy t from"):
            self._copying = "extended"
        return said

    def _parse(self, name: str, text: str) -> bytes:
        if not name:
            self._statements.pop("", None)
        if "syntax" in text:
            raise _Failure("E42601 syntax error")
        self._usable(text)
        if name and name in self._statements:
            raise _Failure(f'E42P05 prepared statement "{name}" already exists')
        if self._chance(2):
            raise _Failure("E42P01 no such table")
        self._statements[name] = text
        return answers("1")

    def _query(self, text: str) -> bytes:
        if "syntax" in text:
            raise _Failure("E42601 syntax error")
        if text == catalog.CATALOG_QUERY:
            names = (*FUNCTIONS, "t") if self._chance(30) else FUNCTIONS
            rows = "".join(f"D{name},-|" for name in names)
            return answers(f"T|{rows}D-,app.user|CSELECT 2") + self._end()
        if text.startswith("DO $hyperpool$"):
            self._fail()
            return answers("E53400 too many") + self._end()
        said = b"" if text.strip(" ;") else answers("I")
        self._rest = [one.strip() for one in text.split(";") if one.strip()]
        try:
            while self._rest and not self._copying:
                one = self._rest.pop(0)
                said += self._run(one)
                if one.lower().startswith("copy t from"):
                    self._copying = "simple"
        except _Failure as failure:
            self._rest.clear()
            self._fail()
            said += answers(str(failure))
        return said if self._copying or self.ended else said + self._end()

    def _copy(self, kind: str) -> bytes:
        if kind in "dSH":
            return b""
        how, self._copying = self._copying, ""
        if kind == "c" and not self._chance(10):
            return answers("CCOPY 1") + (self._end() if how == "simple" else b"")
        self._fail()
        self._skipping = how == "extended"
        return answers("E57014 COPY failed") + (self._end() if how == "simple" else b"")

    # -- transactions ------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        if self._block == "I":
            self._before = None

    def _fail(self) -> None:
        if self._block == "I":
            self._back()
        else:
            self._block = "E"

    def _back(self) -> None:
        if self._before is not None:
            self._settings, self._truths = self._before
            self._before = None

    def _end(self) -> bytes:
        """The end of an answer in the simple protocol."""
        self._commit()
        return self._ready()

    def _ready(self) -> bytes:
        return self._tell() + answers("Z" + self._block.replace("I", ""))

    def _tell(self) -> bytes:
        """What of the settings has changed."""
        changed = [
            name for name in DEFAULTS if name.lower() in _TELLS and self._told[name] != self._settings[name]
        ]
        self._told = dict(self._settings)
        return b"".join(answers(f"S{name}={self._settings[name]}") for name in changed)

    def _usable(self, text: str) -> None:
        if self._block == "E" and not text.lower().startswith(_ENDS):
            raise _Failure("E25P02 aborted")

    # -- statements --------------------------------------------------------------------------------------------------

    def _chance(self, percent: int) -> bool:
        return self._luck.randrange(100) < percent

    def _run(self, text: str, *, described: bool = False) -> bytes:
        low = text.lower()
        if not text.strip():
            return answers("I")
        self._usable(text)
        if self.doomed:
            self.doomed = False
            raise _Failure("E57014 canceling statement due to user request")
        if "dies" in low:
            self.ended = True
            raise _Failure("!57P01 terminating")
        if low.startswith("do $hyperpool$"):
            raise _Failure("E53400 too many")
        if self._chance(4 if "pg_catalog" not in low else 1) or "fails" in low:
            raise _Failure("E22012 division by zero")
        unasked = self._unasked()
        rows = self._rows(text)
        tag = self._change(text, low) if rows is None else "SELECT 1"
        if rows is None and low.startswith(("select", "show", "copy t to")):
            rows = ["D" + "x" * self._luck.choice((1, 1, 1, 700, 9000))]
        if low.startswith("copy t from"):
            return unasked + answers("G")
        if low.startswith("copy t to"):
            out = frame(b"H", bytes(3)) + frame(b"d", b"data") + frame(b"c")
            return unasked + out + answers("CCOPY 1")
        told = [] if rows is None else ([] if described else ["T"]) + rows
        said = unasked + answers("|".join([*told, "C" + tag]))
        return said + (self._tell() if self._chance(50) else b"")

    def _unasked(self) -> bytes:
        if self._chance(4):
            return answers("Nby the way")
        return answers("Achannel") if self._truths[1] and self._chance(20) else b""

    def _rows(self, text: str) -> list[str] | None:
        """What the pooler has asked; None if it is nothing of the pooler's."""
        if text == _PINS:
            truths = [one or self._chance(2) for one in self._truths]
            return ["D" + ",".join("t" if one else "f" for one in truths)]
        if text == session._ALL_SETTINGS:
            names = [name for name in self._settings if self._settings[name] != DEFAULTS.get(name)]
            return self._shown({*names, "role", "session_authorization"} - {n for n in names if "." in n})
        listed = _LIST.search(text)
        if listed and "lower(name) OPERATOR" in text:
            return self._shown(self._asked(listed[1]) & {*DEFAULTS, *_CANONICAL})
        if listed and "unnest" in text:
            return [f"D{name},{self._value(name)},-" for name in sorted(self._asked(listed[1]))]
        if text.startswith("SELECT 'statement_timeout'"):
            return [f"Dstatement_timeout,{self._value('statement_timeout')},-"]
        return None

    def _asked(self, listed: str) -> set[str]:
        return {one.strip(" E'") for one in listed.split(",")}

    def _shown(self, names: Iterable[str]) -> list[str]:
        kept = {_CANONICAL.get(name, name) for name in names}
        return [f"D{name.lower()},{self._value(name)},{DEFAULTS[name]}" for name in sorted(kept)]

    def _value(self, name: str) -> str:
        return self._settings.get(_CANONICAL.get(name, name), "-")

    def _set(self, name: str, value: str | None) -> None:
        name = _CANONICAL.get(name.lower(), name)
        value = DEFAULTS.get(name) if value is None else value
        if value is None:
            self._settings.pop(name, None)
        else:
            self._settings[name] = value

    def _change(self, text: str, low: str) -> str:
        """Do what a statement says. Returns its tag."""
        word = low.split(maxsplit=1)[0]
        for one, number in _CREATES.items():
            if low.startswith(one):
                self._truths[number] = True
        for one, number in _DROPS.items():
            if low.startswith(one):
                self._truths[number] = False
        self._change_settings(text, low, word)
        if word in {"begin", "start"}:
            self._block = "T"
        elif word in _ENDS:
            return self._finish(rolls_back=word in {"rollback", "abort"})
        elif word == "discard":
            self._discard()
        elif word == "deallocate":
            return self._deallocate(text.rsplit(maxsplit=1)[-1].strip('"'))
        return _TAGS.get(word, text.upper() if word == "discard" else word.upper())

    def _change_settings(self, text: str, low: str, word: str) -> None:
        if found := _SET_CONFIG.search(text):
            if found[3] == "false" or self._chance(50):
                self._set(found[1], found[2])
        elif "stateful(" in low:
            self._set("app.user", self._luck.choice("xy"))
        elif word == "set" and (found := _SET.match(text)):
            if not found[1]:
                self._set(found[2], found[3].strip(" E'"))
        elif word == "reset":
            for name in list(self._settings) if "all" in low else [low.split()[1].strip('"')]:
                self._set(name, None)

    def _finish(self, *, rolls_back: bool) -> str:
        failed = self._block == "E"
        self._block = "I"
        if rolls_back or failed:
            self._back()
            return "ROLLBACK"
        self._before = None
        return "COMMIT"

    def _discard(self) -> None:
        if self._block != "I":
            raise _Failure("E25001 DISCARD ALL cannot run inside a transaction block")
        self._settings = dict(DEFAULTS)
        self._truths = [False] * 5
        self._statements.clear()

    def _deallocate(self, name: str) -> str:
        if name.lower() == "all":
            self._statements.clear()
            self._truths[4] = False
            return "DEALLOCATE ALL"
        name = name if name.startswith("HYPERPOOL_") else name.lower()
        if name not in self._statements:
            raise _Failure(f'E26000 prepared statement "{name}" does not exist')
        del self._statements[name]
        return "DEALLOCATE"
