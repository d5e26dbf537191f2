"""The same as `glance.py`, in C: one pass over the text.

A bitmap of hashes of three bytes tells where a pattern may begin, so that nearly every position of a text is done with
one look.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.string cimport memset

cdef enum:
    NEEDLE = 1
    CALL = 2
    TEMP = 4
    INTO = 8


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
        self._patterns.append((pattern, meaning))
        if len(pattern) < 3:
            memset(self._spots, 255, sizeof(self._spots))
        else:
            spot = _spot((_fold(pattern[0]) << 16) | (_fold(pattern[1]) << 8) | _fold(pattern[2]))
            self._spots[spot >> 3] |= 1 << (spot & 7)

    cdef int _met(self, const unsigned char *at, Py_ssize_t left) except -1:
        """What the patterns mean that begin here."""
        cdef int meaning = 0
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

    cpdef bint passes(self, object text, Py_ssize_t start, Py_ssize_t end) except -1:
        """See glance.py."""
        cdef const unsigned char *data
        cdef Py_ssize_t size, at
        cdef unsigned int key, slot, three
        cdef unsigned char byte, high = 0
        cdef int met = 0
        cdef bint calls = False
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
        three = (_fold(data[start]) << 8) | _fold(data[start + 1])
        for at in range(start, end):
            byte = data[at]
            high |= byte
            if byte == 59 and at < end - 1:
                return False
            if byte == 40:
                calls = True
            # Behind the end there is nothing: a pattern of less than three bytes makes every spot one to look at.
            three = (three << 8) | (_fold(data[at + 2]) if at + 2 < end else 0)
            slot = _spot(three)
            if self._spots[slot >> 3] & (1 << (slot & 7)):
                met |= self._met(data + at, end - at)
                if met & NEEDLE:
                    return False
        if (met & TEMP and met & INTO) or (met & CALL and calls):
            return False
        return not (self._ascii_only and high & 0x80)
