cimport cython

from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport length_at


cdef class ScramProof:
    cdef bytes _bare
    cdef bytes _challenge
    cdef bytes _ending
    cdef bytes _expected
    cdef bytes _nonce
    cdef object _verifier
    cdef public bint begun

    @cython.locals(size=Py_ssize_t, header=bytes, nonce=bytes, challenge=bytes)
    cpdef bytes challenge(self, bytes data)

    @cython.locals(
        size=Py_ssize_t, end=Py_ssize_t, expected=bytes, proof=bytes, stored_key=bytes, message=bytes, client_key=bytes
    )
    cpdef bytes conclude(self, bytes data)
