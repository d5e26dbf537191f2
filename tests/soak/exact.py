"""Visitors of exact bytes: pipelines, COPY, cancel requests, and clients that vanish in the middle."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, ClassVar, Final

from tests.soak.journal import Refused
from tests.soak.visitor import Visitor
from tests.support import rawclient as raw

if TYPE_CHECKING:
    from tests.support.rawclient import Frame

_CANCELED: Final = "57014"
_COPIED: Final = 25


class Talker(raw.RawClient):
    """A client that takes an ErrorResponse for the end, unless it has asked for it."""

    def enter(self, database: str, user: str, password: str) -> None:
        """Log in.

        Raises:
            Refused: it was not let in.
        """
        last = self.login(database, user, password)[-1]
        if last.kind == b"E":
            raise Refused(last.fields["C"], last.fields["M"])

    def exchange(self, *data: bytes, allowed: str = "") -> list[Frame]:
        """Send, and read up to ReadyForQuery.

        Args:
            data: what to send.
            allowed: an SQLSTATE that may come.

        Raises:
            Refused: another error came.
        """
        self.send(*data)
        return self.answer(allowed)

    def answer(self, allowed: str = "") -> list[Frame]:
        """Read up to ReadyForQuery; raises as `exchange` does."""
        frames: list[Frame] = []
        while True:
            got = self.receive()
            frames.append(got)
            if got.kind == b"E" and got.fields["C"] != allowed:
                raise Refused(got.fields["C"], got.fields["M"])
            if got.kind == b"Z":
                return frames

    def values(self, *data: bytes) -> list[bytes | None]:
        """Send, and return the first column of all rows; raises as `exchange` does."""
        return _values(self.exchange(*data))


def _values(frames: list[Frame]) -> list[bytes | None]:
    return [got.columns[0] for got in frames if got.kind == b"D"]


class ExactVisitor(Visitor):
    """Does, step by step, what drivers seldom do."""

    kind: ClassVar[str] = "exact bytes"

    def visit(self) -> None:
        """Log in, and do steps at random."""
        steps = [
            self._several,
            self._pipeline,
            self._block,
            self._large,
            self._copy_out,
            self._copy_in,
            self._flush,
            self._cancel,
        ]
        with self._login() as client:
            for n in self.stays():
                self.dice.choice(steps)(client, f"{self.number}.{n}")
                if not self.pause():
                    break
            if self.dice.random() < 0.5:
                client.close()
            else:
                self._vanish(client)

    def _login(self) -> Talker:
        info = self.site.conninfo(self.route)
        client = Talker((info["host"], info["port"]))
        try:
            client.enter(self.route, info["user"], info["password"])
        except BaseException:
            client.sock.close()
            raise
        return client

    def _several(self, client: Talker, token: str) -> None:
        seen = client.values(raw.query(f"SELECT '{token}a'; SELECT '{token}b'"))
        self.expect(seen, [f"{token}a".encode(), f"{token}b".encode()], "two statements in one text")

    def _pipeline(self, client: Talker, token: str) -> None:
        bad = {n for n in range(12) if self.dice.random() < 0.3}
        client.send(
            *(
                raw.extended("SELECT 1 / (SELECT 0)" if n in bad else f"SELECT '{token}.{n}'") + raw.SYNC
                for n in range(12)
            )
        )
        for n in range(12):
            frames = client.answer("22012" if n in bad else "")
            self.expect(
                (_values(frames), b"E" in raw.kinds(frames)),
                ([] if n in bad else [f"{token}.{n}".encode()], n in bad),
                "an answer in a pipeline",
            )

    def _block(self, client: Talker, token: str) -> None:
        client.exchange(raw.query("BEGIN"))
        server = client.values(raw.query("SELECT pg_backend_pid()"))
        if self.dice.random() < 0.3:
            frames = client.exchange(raw.query("SELECT 1 / 0"), allowed="22012")
            self.expect(frames[-1].body, b"E", "the state of a failed transaction")
            client.exchange(raw.query("ROLLBACK"))
            return
        seen = client.values(raw.query(f"SELECT pg_backend_pid(), '{token}'"))
        self.expect(seen, server, "the server within a transaction")
        self.expect(client.exchange(raw.query("COMMIT"))[-1].body, b"I", "the state after COMMIT")

    def _large(self, client: Talker, token: str) -> None:
        size = self.dice.randrange(10_000, 400_000)
        seen = client.values(raw.query(f"SELECT repeat('{token}', {size // len(token)})"))
        self.expect(seen, [token.encode() * (size // len(token))], "a large value")

    def _copy_out(self, client: Talker, token: str) -> None:
        frames = client.exchange(raw.query(f"COPY (SELECT '{token}' FROM generate_series(1, 200)) TO STDOUT"))
        seen = [got.body for got in frames if got.kind == b"d"]
        self.expect(seen, [token.encode() + b"\n"] * 200, "COPY TO STDOUT")

    def _copy_in(self, client: Talker, token: str) -> None:
        rows = [raw.copy_data(f"{self.number}\t{token}\n".encode()) for _ in range(_COPIED)]
        frames = client.exchange(
            raw.query(f"BEGIN; DELETE FROM copied WHERE client = {self.number}; COPY copied FROM STDIN"),
            *rows,
            raw.COPY_DONE,
        )
        self.expect(frames[-2].body, b"COPY %d\0" % _COPIED, "the tag of COPY FROM STDIN")
        seen = client.values(raw.query(f"SELECT count(*) FROM copied WHERE client = {self.number}; COMMIT"))
        self.expect(seen, [b"%d" % _COPIED], "copied rows")

    def _flush(self, client: Talker, token: str) -> None:
        client.send(raw.extended(f"SELECT '{token}'"), raw.FLUSH)
        frames: list[Frame] = []
        while not frames or frames[-1].kind != b"C":
            frames.append(got := client.receive())
            if got.kind == b"E":
                raise Refused(got.fields["C"], got.fields["M"])
        self.expect(_values(frames), [token.encode()], "an answer that was asked for with Flush")
        client.exchange(raw.SYNC)

    def _cancel(self, client: Talker, token: str) -> None:
        client.exchange(raw.query("BEGIN"))
        client.send(raw.query(f"SELECT pg_sleep(10), '{token}'"))
        # A cancel that comes before the query is lost, as always with PostgreSQL; so ask again.
        while not select.select([client.sock], [], [], 0.05)[0]:
            with raw.RawClient(client.sock.getpeername()) as other:
                other.send(raw.cancel_packet(client.pid, client.secret))
                other.receive_all()
        codes = [got.fields["C"] for got in client.answer(_CANCELED) if got.kind == b"E"]
        self.expect(codes, [_CANCELED], "the errors of a canceled query")
        # The last of the cancels may still hit the ROLLBACK.
        while client.exchange(raw.query("ROLLBACK"), allowed=_CANCELED)[-1].body != b"I":
            pass

    def _vanish(self, client: Talker) -> None:
        """Break off anywhere in a transaction that is never committed."""
        whole = raw.query("BEGIN") + raw.extended("SELECT 1") + raw.SYNC
        whole += raw.query(
            f"INSERT INTO entry VALUES ({self.number}, {self.entries.draw()}); SELECT pg_sleep(0.1)"
        )
        client.send(whole[: self.dice.randrange(len(whole))])
        client.abort()
