cpdef int bucket_of(double seconds) except -1
