cimport cython

from hyperpool.cache.fronts cimport Fronts
from hyperpool.pool.statements cimport StatementStore
from hyperpool.sql.glance cimport Glance
from hyperpool.stats cimport PoolStats


cdef class Places:
    cdef public list idle
    cdef public object waiting
    cdef public bint paused
    cdef public bint session
    cdef public bint blocks
    cdef public bint watched
    cdef public bint translates
    cdef public bint keeps_texts
    cdef public double slow
    cdef public bint round_robin
    cdef public double check_after
    cdef public object cache
    cdef public Fronts fronts
    cdef public object reader
    cdef public Glance glance
    cdef public StatementStore statements
    cdef public PoolStats stats

    cpdef rest(self, object server)
