"""The same as `scan.py`, in C."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.string cimport memchr

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


cpdef bytes text_at(bytearray buf, Py_ssize_t at, Py_ssize_t end):
    """See scan.py."""
    cdef const char *data
    cdef const char *nul
    if not 0 <= at <= end <= PyByteArray_GET_SIZE(buf):
        raise IndexError("outside of the buffer")
    data = PyByteArray_AS_STRING(buf) + at
    nul = <const char *>memchr(data, 0, end - at)
    return None if nul == NULL else data[:nul - data]


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
