cdef extern from "sys/epoll.h" nogil:
    cdef union epoll_data:
        int fd
    cdef struct epoll_event:
        unsigned int events
        epoll_data data

cpdef int raw_descriptor(object sock) except -2
cpdef tuple accept(object listening, int raw)
cpdef close_socket(object sock)
cpdef Py_ssize_t receive(object sock, int raw, memoryview view) except -2
cpdef Py_ssize_t send(object sock, int raw, object data, Py_ssize_t end, int flags=*) except -2

cpdef double read(object clock) except *

cdef class Poller:
    cdef object _epoll
    cdef int _descriptor
    cdef int _count
    cdef int _timer
    cdef bint _armed
    cdef bint _stirred
    cdef epoll_event _events[256]
    cpdef int register(self, int fd, unsigned int mask) except -1
    cpdef int modify(self, int fd, unsigned int mask) except -1
    cdef int _control(self, int operation, int fd, unsigned int mask) except -1
    cpdef int wait(self, double timeout) except -1
    cdef int _arm(self, double timeout) except -1
    cdef int _without_timer(self, int count) noexcept
    cpdef int rest(self, double timeout) except -1
    cpdef forget(self, int fd)
    cpdef int fd(self, int number) except -2
    cpdef long mask(self, int number) except -2
