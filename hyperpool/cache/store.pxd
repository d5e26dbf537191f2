from hyperpool.cache.counters cimport CacheStats, QueryStats


cdef class Entry:
    cdef public bytes key
    cdef public object database
    cdef public bytes answer
    cdef public frozenset tables
    cdef public double fresh_until
    cdef public double dead_after
    cdef public double cost
    cdef public bint used
    cdef public bint refreshing
    cdef public bint gone
    cdef public list fronts
    cdef public QueryStats stats
    cdef public CacheStats totals
    cdef public Py_ssize_t size
