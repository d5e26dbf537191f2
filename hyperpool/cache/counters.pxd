cdef class QueryStats:
    cdef public str fingerprint
    cdef public str template
    cdef public long long calls
    cdef public long long hits
    cdef public long long stale
    cdef public long long misses
    cdef public long long refreshes
    cdef public long long coalesced
    cdef public long long bytes
    cdef public double saved
    cdef public object last

    cpdef hit(self, long long size, double cost)


cdef class CacheStats:
    cdef public long long hits
    cdef public long long stale
    cdef public long long misses
    cdef public long long stored
    cdef public long long refreshes
    cdef public long long coalesced
    cdef public long long evictions
    cdef public long long bytes
    cdef public double saved
    cdef public object refused
    cdef public object invalidations
    cdef public object unstored

    cpdef hit(self, long long size, double cost)
