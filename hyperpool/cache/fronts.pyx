"""The same as `fronts.py`, in C: a hash table of chains, with as many chains as there are ways, or more."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM
from libc.string cimport memcmp

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030E0000
    #define hash_bytes Py_HashBuffer
    #elif PY_VERSION_HEX >= 0x030D0000
    PyAPI_FUNC(Py_hash_t) _Py_HashBytes(const void *, Py_ssize_t);
    #define hash_bytes _Py_HashBytes
    #else
    #define hash_bytes _Py_HashBytes
    #endif
    """
    Py_hash_t hash_bytes(const void *data, Py_ssize_t size)

Path = tuple[object, object, bytes]

FRONT = 300

cdef enum:
    FEWEST = 64


cdef inline Py_hash_t _code(object settings, object statement, const void *data, Py_ssize_t size):
    """As Python's own for bytes, so that nobody can choose what collides."""
    return hash_bytes(data, size) ^ (<Py_hash_t><void *>settings >> 4) ^ (<Py_hash_t><void *>statement >> 5)


cdef class Front:
    """See fronts.py."""

    def __init__(self, tuple path, entry, bytes prefix, bint closes, unnamed):
        settings, statement, data = path
        if type(data) is not bytes:
            raise TypeError("a path ends with bytes")
        self.path = path
        self.entry = entry
        self.prefix = prefix
        self.closes = closes
        self.unnamed = unnamed
        self.size = len(data) + FRONT
        self._hash = _code(settings, statement, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cpdef forget(self):
        """See fronts.py."""
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.drop(self)


cdef class Fronts:
    """See fronts.py."""

    def __init__(self):
        self._heads = [None] * FEWEST
        self._count = 0

    def __len__(self):
        return self._count

    def __iter__(self):
        cdef Front front
        for head in self._heads:
            front = head
            while front is not None:
                yield front
                front = front._next

    cdef Front _found(self, object settings, object statement, const char *data, Py_ssize_t size, Py_hash_t code):
        cdef size_t place = <size_t>code & <size_t>(len(self._heads) - 1)
        cdef Front front = <Front>PyList_GET_ITEM(self._heads, place)
        cdef tuple path
        while front is not None:
            if front._hash == code:
                path = front.path
                if (
                    path[0] is settings
                    and path[1] is statement
                    and PyBytes_GET_SIZE(path[2]) == size
                    and memcmp(PyBytes_AS_STRING(path[2]), data, size) == 0
                ):
                    return front
            front = front._next
        return None

    cpdef Front find(self, object settings, object statement, bytearray buffer, Py_ssize_t at, Py_ssize_t end):
        """See fronts.py."""
        cdef const char *data
        if not 0 <= at <= end <= PyByteArray_GET_SIZE(buffer):
            raise IndexError("outside of the buffer")
        if not self._count:
            return None
        data = PyByteArray_AS_STRING(buffer) + at
        return self._found(settings, statement, data, end - at, _code(settings, statement, data, end - at))

    cpdef bint put(self, Front front) except -1:
        """See fronts.py."""
        settings, statement, data = front.path
        cdef size_t place
        if self._found(settings, statement, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), front._hash) is not None:
            return False
        if self._count >= len(self._heads):
            self._grow()
        place = <size_t>front._hash & <size_t>(len(self._heads) - 1)
        front._next = self._heads[place]
        self._heads[place] = front
        front.owner = self
        self._count += 1
        return True

    cpdef drop(self, Front front):
        """See fronts.py."""
        cdef size_t place = <size_t>front._hash & <size_t>(len(self._heads) - 1)
        cdef Front before = None
        cdef Front other = self._heads[place]
        while other is not None and other is not front:
            before, other = other, other._next
        if other is None:
            return
        if before is None:
            self._heads[place] = front._next
        else:
            before._next = front._next
        front._next = None
        self._count -= 1

    cdef _grow(self):
        """Have twice as many chains."""
        cdef list heads = [None] * (2 * len(self._heads))
        cdef Front front
        cdef Front following
        cdef size_t place
        for head in self._heads:
            front = head
            while front is not None:
                following = front._next
                place = <size_t>front._hash & <size_t>(len(heads) - 1)
                front._next = heads[place]
                heads[place] = front
                front = following
        self._heads = heads
