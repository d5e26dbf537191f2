"""The same as `lines.py`, in C."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from libc.string cimport memcpy, strlen

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char code, int precision, int flags, int *kind) except NULL
    int Py_DTSF_ADD_DOT_0

cdef enum:
    BUCKETS = 52
    LONGEST = 32  # characters of a number and a newline


@cython.cdivision(True)
cdef char *_put(char *at, unsigned long long number) noexcept nogil:
    """Write a number and a newline; where that ends."""
    cdef char digits[20]
    cdef int count = 0
    while True:
        digits[count] = 48 + number % 10
        count += 1
        number //= 10
        if number == 0:
            break
    while count:
        count -= 1
        at[0] = digits[count]
        at += 1
    at[0] = 10
    return at + 1


cdef char *_put_text(char *at, bytes text) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    memcpy(at, PyBytes_AS_STRING(text), size)
    return at + size


cdef char *_put_histogram(char *at, tuple text, tuple shown, object times) except NULL:
    cdef unsigned long long sums[BUCKETS]
    cdef double seconds = 0.0
    cdef Py_ssize_t place, number, count = len(shown)
    cdef list buckets
    cdef char *told
    for place in range(BUCKETS):
        sums[place] = 0
    for buckets, time in times:
        if len(buckets) != BUCKETS:
            raise ValueError("not as many buckets as there are")
        for place in range(BUCKETS):
            sums[place] += <unsigned long long>buckets[place]
        seconds += time
    for place in range(1, BUCKETS):
        sums[place] += sums[place - 1]
    for number in range(count):
        place = shown[number]
        if not 0 <= place < BUCKETS:
            raise IndexError("there is no such bucket")
        at = _put(_put_text(at, <bytes?>text[number]), sums[place])
    for number in range(count, count + 2):
        at = _put(_put_text(at, <bytes?>text[number]), sums[BUCKETS - 1])
    at = _put_text(at, <bytes?>text[count + 2])
    told = PyOS_double_to_string(seconds, 114, 0, Py_DTSF_ADD_DOT_0, NULL)
    number = strlen(told)
    memcpy(at, told, number)
    PyMem_Free(told)
    at[number] = 10
    return at + number + 1


cpdef bytes histograms(list texts, tuple shown, list parts):
    """See lines.py."""
    cdef Py_ssize_t size = 0, number, count = len(texts), numbers = len(shown) + 3
    cdef tuple text
    cdef bytes piece, made
    cdef char *at
    if len(parts) != count:
        raise ValueError("not as many texts as histograms")
    for text in texts:
        if len(text) != numbers:
            raise ValueError("not as many texts as numbers")
        for piece in text:
            size += PyBytes_GET_SIZE(piece) + LONGEST
    made = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(made)
    for number in range(count):
        at = _put_histogram(at, <tuple?>texts[number], shown, parts[number])
    return made[: at - PyBytes_AS_STRING(made)]
