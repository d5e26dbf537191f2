cimport cython

from hyperpool.cache.fronts cimport Front, Fronts
from hyperpool.cache.store cimport Entry
from hyperpool.pool.places cimport Places
from hyperpool.relay.frontend cimport Frontend
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport text_at


@cython.locals(
    kind=int, name=bytes, front=Front, entry=Entry, now=double, pool=Places, answer=bytes, size=Py_ssize_t
)
cpdef bint hit(Frontend client, Fronts fronts, bytearray buffer, Py_ssize_t end) except -1
