"""The same as `scan.py`, in C."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

Buffer = bytes | bytearray | memoryview


cdef inline Py_ssize_t _length(const unsigned char *frame) noexcept nogil:
    return (<unsigned int>frame[1] << 24) | (<unsigned int>frame[2] << 16) | (<unsigned int>frame[3] << 8) | frame[4]


cdef Py_ssize_t _hop(
    const unsigned char *data, Py_ssize_t at, Py_ssize_t end, const unsigned char *passing
) noexcept nogil:
    cdef Py_ssize_t last = end - 5
    cdef Py_ssize_t length
    while at <= last:
        length = _length(data + at)
        if length < 4 or not passing[data[at]]:
            return at
        at += length + 1
    return at


cpdef Py_ssize_t length_at(object buf, Py_ssize_t at) except -1:
    """See scan.py."""
    cdef Py_buffer view
    cdef Py_ssize_t length
    if PyByteArray_CheckExact(buf):
        if at < 0 or at + 5 > PyByteArray_GET_SIZE(buf):
            raise IndexError("no header there")
        return _length(<const unsigned char *>PyByteArray_AS_STRING(buf) + at)
    if PyBytes_CheckExact(buf):
        if at < 0 or at + 5 > PyBytes_GET_SIZE(buf):
            raise IndexError("no header there")
        return _length(<const unsigned char *>PyBytes_AS_STRING(buf) + at)
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        if at < 0 or at + 5 > view.len:
            raise IndexError("no header there")
        return _length(<const unsigned char *>view.buf + at)
    finally:
        PyBuffer_Release(&view)


cpdef int byte_at(object buf, Py_ssize_t at) except -1:
    """See scan.py."""
    return <unsigned char>_inside(buf, at, at + 1)[0]


cdef const char *_inside(object buf, Py_ssize_t at, Py_ssize_t end) except NULL:
    """Where the bytes from `at` to before `end` lie."""
    cdef const char *data
    cdef Py_ssize_t size
    if PyByteArray_CheckExact(buf):
        data = PyByteArray_AS_STRING(buf)
        size = PyByteArray_GET_SIZE(buf)
    elif PyBytes_CheckExact(buf):
        data = PyBytes_AS_STRING(buf)
        size = PyBytes_GET_SIZE(buf)
    else:
        raise TypeError("a buffer is bytes or a bytearray")
    if not 0 <= at <= end <= size:
        raise IndexError("outside of the buffer")
    return data + at


cpdef bytes part(object buf, Py_ssize_t at, Py_ssize_t end):
    """See scan.py."""
    return _inside(buf, at, end)[:end - at]


cpdef bint matches(object buf, Py_ssize_t at, Py_ssize_t end, bytes what) except -1:
    """See scan.py."""
    cdef const char *data = _inside(buf, at, end)
    return end - at == PyBytes_GET_SIZE(what) and memcmp(data, PyBytes_AS_STRING(what), end - at) == 0


cpdef bytes text_at(object buf, Py_ssize_t at, Py_ssize_t end):
    """See scan.py."""
    cdef const char *data = _inside(buf, at, end)
    cdef const char *nul = <const char *>memchr(data, 0, end - at)
    return None if nul == NULL else data[:nul - data]


cpdef bytes renamed(object buf, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t end, bytes name):
    """See scan.py."""
    cdef const char *data = _inside(buf, 0, end)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef unsigned int length
    cdef bytes made
    cdef char *to
    if not 5 <= at <= stop <= end:
        raise IndexError("outside of the buffer")
    length = <unsigned int>(_length(<const unsigned char *>data) + size - (stop - at))
    made = PyBytes_FromStringAndSize(NULL, end + size - (stop - at))
    to = PyBytes_AS_STRING(made)
    memcpy(to, data, at)
    to[1] = length >> 24
    to[2] = length >> 16
    to[3] = length >> 8
    to[4] = length
    memcpy(to + at, PyBytes_AS_STRING(name), size)
    memcpy(to + at + size, data + stop, end - stop)
    return made


cpdef Py_ssize_t hop(object buf, Py_ssize_t at, Py_ssize_t end, bytes passing) except -1:
    """See scan.py."""
    cdef Py_buffer view
    cdef const unsigned char *table = <const unsigned char *>PyBytes_AS_STRING(passing)
    if at < 0 or PyBytes_GET_SIZE(passing) < 256:
        raise IndexError("outside of the buffer")
    if PyByteArray_CheckExact(buf):
        if end > PyByteArray_GET_SIZE(buf):
            raise IndexError("outside of the buffer")
        return _hop(<const unsigned char *>PyByteArray_AS_STRING(buf), at, end, table)
    if PyBytes_CheckExact(buf):
        if end > PyBytes_GET_SIZE(buf):
            raise IndexError("outside of the buffer")
        return _hop(<const unsigned char *>PyBytes_AS_STRING(buf), at, end, table)
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        if end > view.len:
            raise IndexError("outside of the buffer")
        return _hop(<const unsigned char *>view.buf, at, end, table)
    finally:
        PyBuffer_Release(&view)
