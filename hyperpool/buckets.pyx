"""The same as `buckets.py`, in C."""

from libc.math cimport frexp

BUCKETS = 52


cpdef int bucket_of(double seconds) except -1:
    """See buckets.py."""
    cdef int bits
    cdef double microseconds = seconds * 1e6
    if microseconds < 1.0:
        return 0
    frexp(microseconds, &bits)
    return min(bits, 51)
