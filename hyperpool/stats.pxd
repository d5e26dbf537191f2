cimport cython

from hyperpool.buckets cimport bucket_of


cdef class PoolStats:
    cdef public long long queries
    cdef public long long transactions
    cdef public long long received
    cdef public long long sent
    cdef public double waited
    cdef public long long assignments
    cdef public double query_time
    cdef public double transaction_time
    cdef public long long client_parses
    cdef public long long server_parses
    cdef public long long binds
    cdef public long long logins
    cdef public object pins
    cdef public list query_buckets
    cdef public list transaction_buckets
    cdef public list wait_buckets
    cdef public object login_times
    cdef public dict hops
    cdef public object hop_failures

    @cython.locals(bucket=int)
    cpdef answered(self, long long sent, double seconds)
    cpdef answered_from_memory(self, long long received, long long sent)
    cpdef add_query(self, double seconds)
    cpdef add_transaction(self, double seconds)
    cpdef add_wait(self, double seconds)
