"""The same as `glance.py`, in C: one pass over the text.

Three tables tell for each byte in which groups of patterns it is the first, the second, and the third one, so that
nearly every position of a text is done with three looks. Where a group is left, a bitmap of hashes of three bytes tells
whether a pattern may begin there.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.string cimport memset

cdef enum:
    NEEDLE = 1
    CALL = 2
    TEMP = 4
    INTO = 8
    PARENTHESIS = 16

# The group of what counts as a byte alone: a semicolon, a parenthesis.
cdef enum:
    SINGLE = 1


cdef inline unsigned char _low(unsigned char byte) noexcept nogil:
    return byte + 32 if 65 <= byte <= 90 else byte


cdef inline unsigned int _fold(unsigned char byte) noexcept nogil:
    """The same for both cases of a letter, and cheaper than `_low`."""
    return byte | 32


cdef inline unsigned int _key(const unsigned char *data) noexcept nogil:
    return (
        (<unsigned int>_low(data[0]) << 24)
        | (<unsigned int>_low(data[1]) << 16)
        | (<unsigned int>_low(data[2]) << 8)
        | _low(data[3])
    )


cdef inline unsigned int _slot(unsigned int key) noexcept nogil:
    return (key * 2654435761u) >> 25


cdef inline unsigned int _spot(unsigned int three) noexcept nogil:
    return ((three & 0xffffff) * 2654435761u) >> 21


cdef inline void _enter(unsigned char *table, unsigned char byte, unsigned char group) noexcept nogil:
    """A group has this byte, in lower case, or in upper case."""
    table[byte] |= group
    if 97 <= byte <= 122:
        table[byte - 32] |= group


cdef class Glance:
    """See glance.py."""

    def __init__(self):
        memset(self._keys, 0, sizeof(self._keys))
        self._patterns = []

    def learn(self, starts, needles, calls, *, ascii_only, never):
        """See glance.py."""
        cdef unsigned int slot
        cdef bytes raw
        memset(self._keys, 0, sizeof(self._keys))
        memset(self._spots, 0, sizeof(self._spots))
        memset(self._first, 0, sizeof(self._first))
        memset(self._second, SINGLE, sizeof(self._second))
        memset(self._third, SINGLE, sizeof(self._third))
        self._first[40] = self._first[59] = SINGLE
        known = [(start.encode(), kind) for start, kind in starts.items() if len(start) == 4]
        if len(known) > 100:
            raise ValueError("more beginnings than there is room for")
        for raw, kind in known:
            slot = _slot(_key(<const unsigned char *>PyBytes_AS_STRING(raw)))
            while self._keys[slot]:
                slot = (slot + 1) & 127
            self._keys[slot] = _key(<const unsigned char *>PyBytes_AS_STRING(raw))
            self._kinds[slot] = 1 if kind else 0
        self._patterns = []
        self._add(b"temp", TEMP)
        self._add(b"into", INTO)
        self._add(b"pg_temp", NEEDLE)
        self._add(b'u&"', NEEDLE)
        for needle in needles:
            self._add(needle.encode(), NEEDLE)
        for call in calls:
            self._add(call.encode(), CALL)
        self._ascii_only = ascii_only
        self._never = never

    cdef _add(self, bytes pattern, int meaning):
        cdef unsigned int spot
        cdef unsigned char group = 2 << (len(self._patterns) % 7)
        self._patterns.append((pattern, meaning))
        if len(pattern) < 3:
            # It is looked for everywhere.
            memset(self._spots, 255, sizeof(self._spots))
            memset(self._first, 255, sizeof(self._first))
            memset(self._second, 255, sizeof(self._second))
            memset(self._third, 255, sizeof(self._third))
        else:
            spot = _spot((_fold(pattern[0]) << 16) | (_fold(pattern[1]) << 8) | _fold(pattern[2]))
            self._spots[spot >> 3] |= 1 << (spot & 7)
            _enter(self._first, pattern[0], group)
            _enter(self._second, pattern[1], group)
            _enter(self._third, pattern[2], group)

    cdef int _met(self, const unsigned char *at, Py_ssize_t left) except -1:
        """What the patterns mean that begin here."""
        cdef int meaning = PARENTHESIS if at[0] == 40 else 0
        cdef Py_ssize_t i, size
        cdef bytes pattern
        cdef const unsigned char *letters
        for pattern, what in self._patterns:
            size = PyBytes_GET_SIZE(pattern)
            if size > left:
                continue
            letters = <const unsigned char *>PyBytes_AS_STRING(pattern)
            for i in range(size):
                if _low(at[i]) != letters[i]:
                    break
            else:
                meaning |= <int>what
        return meaning

    cdef int _closer(self, const unsigned char *at, Py_ssize_t left) except -1:
        """What begins here means."""
        cdef unsigned int three = (_fold(at[0]) << 16)
        cdef unsigned int spot
        if left > 2:
            three |= (_fold(at[1]) << 8) | _fold(at[2])
        spot = _spot(three)
        if self._spots[spot >> 3] & (1 << (spot & 7)):
            return self._met(at, left)
        return PARENTHESIS if at[0] == 40 else 0

    cpdef bint passes(self, object text, Py_ssize_t start, Py_ssize_t end) except -1:
        """See glance.py."""
        cdef const unsigned char *data
        cdef Py_ssize_t size, at
        cdef const unsigned char *first = self._first
        cdef const unsigned char *second = self._second
        cdef const unsigned char *third = self._third
        cdef unsigned int key, slot
        cdef unsigned char high = 0
        cdef int met = 0
        if PyByteArray_CheckExact(text):
            data = <const unsigned char *>PyByteArray_AS_STRING(text)
            size = PyByteArray_GET_SIZE(text)
        elif PyBytes_CheckExact(text):
            data = <const unsigned char *>PyBytes_AS_STRING(text)
            size = PyBytes_GET_SIZE(text)
        else:
            raise TypeError("a text is bytes or a bytearray")
        if start < 0 or end > size:
            raise IndexError("outside of the text")
        if end - start < 4:
            return False
        key = _key(data + start)
        slot = _slot(key)
        while self._keys[slot] != key or not key:
            if not self._keys[slot]:
                return False
            slot = (slot + 1) & 127
        if not self._kinds[slot]:
            for at in range(start, end):
                high |= data[at]
                if data[at] == 59 and at < end - 1:
                    return False
            return not (self._ascii_only and high & 0x80)
        if self._never:
            return False
        for at in range(start, end - 2):
            high |= data[at]
            if first[data[at]] & second[data[at + 1]] & third[data[at + 2]]:
                if data[at] == 59:
                    return False
                met |= self._closer(data + at, end - at)
        # Behind the end there is nothing.
        for at in range(end - 2, end):
            high |= data[at]
            if data[at] == 59 and at < end - 1:
                return False
            met |= self._closer(data + at, end - at)
        if met & NEEDLE or (met & TEMP and met & INTO) or (met & CALL and met & PARENTHESIS):
            return False
        return not (self._ascii_only and high & 0x80)
