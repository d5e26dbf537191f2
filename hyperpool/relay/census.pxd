cimport cython


cdef class Census:
    cdef public dict databases
    cdef public dict users

    cpdef enter(self, str database, str user)
    cpdef leave(self, str database, str user)


@cython.locals(left=long)
cdef _lessen(dict counts, str key)
