"""What workers tell each other of writes before anybody can know of them: a log in memory that they share.

Each worker writes to a part of its own, before the answer to a write is sent. Each looks at all parts before it answers
from memory: behind the answer that somebody has got to a write, wherever that was, nobody gets an older one.

::

    heads: one per part              records of part 0: a ring            records of part 1 ...
    [count|doubts][count|doubts]...  [number database table what sum]...

A head says how many records there have been, and of how many databases its writer is in doubt. Both are in one word of
eight bytes, which a processor reads and writes at once: nobody sees the one without the other, or half of it. A record
has its number and a checksum in it: one that has been overwritten, or is not there yet as a processor sees it, does not
fit, and then everything is dropped. Every part has one writer, so that nothing is locked.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import crc32

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from mmap import mmap

    Memory: TypeAlias = "mmap | bytearray"

WRITES: Final = 1
"""Tables have been written to."""

SCHEMA: Final = 2
"""The schema may have changed."""

RENEWED: Final = 3
"""It may be another database now."""

DOUBTS: Final = 4
"""The worker does not know yet how far something goes that it has executed: it may have changed the schema."""

KNOWS: Final = 5
"""The worker knows it by now, and has told."""

UNSURE: Final = 6
"""The same as `SCHEMA`, but hardly: the catalog is to be looked at again soon."""

DIED: Final = 7
"""A worker has died, with what it knew of writes; in the place of a table, its number and one."""

HELD: Final = 8
"""Another pooler may serve clients from now on, and nobody here knows what is written there."""

ANY: Final = 0
"""In the place of a table: all of them."""

_MOST_TABLES: Final = 64
"""A write to more of them is told as one to any table."""

_RECORDS: Final = 4096
"""In each part; who has not looked for so many drops everything."""

_WORD: Final = 8
_DOUBT_BITS: Final = 16
_MOST_DOUBTS: Final = (1 << _DOUBT_BITS) - 1
"""Databases in doubt; more of them count as that many."""

_record = Struct("<Q8sII")
_sum = Struct("<I")
_SIZE: Final = 32

NOBODY: Final = bytes(8)
"""In the place of a database: all of them."""


@attrs.frozen
class Note:
    """One record.

    Attributes:
        writer: whose it is: the number of a worker, or as many as there are workers for their supervisor.
        database: which one, by the digest that all workers know it by.
        table: an oid, or `ANY`.
        what: what has happened.
    """

    writer: int
    database: bytes
    table: int
    what: int


ANYTHING: Final = Note(-1, NOBODY, ANY, SCHEMA)
"""What a lost record may have said."""


def board_size(workers: int) -> int:
    """Bytes of memory that so many workers and their supervisor need."""
    return (workers + 1) * (_WORD + _RECORDS * _SIZE)


class Board:
    """One process's view of the log.

    Args:
        memory: shared by all, zeroes at first; of `board_size` bytes.
        workers: how many there are.
        own: the number of this one; as many as there are workers for their supervisor.
    """

    def __init__(self, memory: Memory, workers: int, own: int) -> None:
        self._memory = memory
        self._parts = workers + 1
        self._own = own
        self._size = self._parts * _WORD
        # Element by element, each is one access to memory; a slice of bytes may be copied in pieces.
        self._words = memoryview(memory)[: self._size].cast("Q")
        self._doubted: set[bytes] = set()
        self._told, _ = _parts_of(self._words[own])
        self._put_head()
        # What has been told before is nothing to somebody who has kept nothing yet.
        self._heard: list[int]
        self._heard_bytes: bytes
        self._remember(self._heads())

    def tell(self, database: bytes, tables: Collection[int] | None, what: int) -> None:
        """Write something down for all others.

        Args:
            database: as in `Note`.
            tables: oids; None for any table.
            what: what has happened.
        """
        if tables is None or len(tables) > _MOST_TABLES:
            tables = (ANY,)
        memory = self._memory
        for table in tables:
            number = self._told + 1
            at = self._place(self._own, number)
            record = _record.pack(number, database, table, what)
            memory[at : at + _SIZE] = (record + _sum.pack(crc32(record))).ljust(_SIZE, b"\0")
            self._told = number
        if what == DOUBTS:
            self._doubted.add(database)
        elif what == KNOWS:
            self._doubted.discard(database)
        self._put_head()

    def hear(self) -> Iterator[Note | None]:
        """What others have told since the last time; None for something that is lost."""
        if not self.has_news():
            return
        before, heads = self._heard, self._heads()
        self._remember(heads)
        for writer in range(self._parts):
            if writer == self._own:
                continue
            (first, _), (last, _) = _parts_of(before[writer]), _parts_of(heads[writer])
            if not first <= last <= first + _RECORDS:
                yield None
                continue
            for number in range(first + 1, last + 1):
                yield self._read(writer, number)

    def has_news(self) -> bool:
        """Whether there is something to `hear`."""
        # Bytes are compared faster than words. Of what is being written at this moment, any of them may be seen.
        return self._memory[: self._size] != self._heard_bytes

    def doubting(self) -> set[int]:
        """Who is in doubt of any database, as of what was heard last."""
        return {writer for writer, word in enumerate(self._heard) if _parts_of(word)[1]}

    def certain(self) -> set[int]:
        """Everybody else."""
        return set(range(self._parts)) - self.doubting()

    def bury(self, worker: int) -> None:
        """A worker has died: tell all others of it, in the place of its supervisor.

        It is in doubt until they have been told: else somebody might go on with what that one has held up.
        """
        self.tell(NOBODY, (worker + 1,), DIED)
        told, _ = _parts_of(self._words[worker])
        self._words[worker] = _word(told, 0)

    def _remember(self, heads: list[int]) -> None:
        self._heard = heads
        self._heard_bytes = array("Q", heads).tobytes()

    def _heads(self) -> list[int]:
        return self._words.tolist()

    def _put_head(self) -> None:
        self._words[self._own] = _word(self._told, min(len(self._doubted), _MOST_DOUBTS))

    def _read(self, writer: int, number: int) -> Note | None:
        at = self._place(writer, number)
        data = bytes(self._memory[at : at + _SIZE])
        record = data[: _record.size]
        found, database, table, what = _record.unpack(record)
        if found != number or _sum.unpack_from(data, _record.size)[0] != crc32(record):
            return None
        return Note(writer, database, table, what)

    def _place(self, writer: int, number: int) -> int:
        return self._size + (writer * _RECORDS + number % _RECORDS) * _SIZE


def _word(count: int, doubts: int) -> int:
    return count << _DOUBT_BITS | doubts


def _parts_of(word: int) -> tuple[int, int]:
    return word >> _DOUBT_BITS, word & _MOST_DOUBTS
