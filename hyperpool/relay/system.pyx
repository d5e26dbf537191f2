"""The same as `system.py`, in C."""

import socket
import time
from select import EPOLLET, EPOLLIN, epoll

from hyperpool.transport.sockets import address_name

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.errno cimport EAGAIN, EINTR, ENOSYS, EPERM, errno as c_errno

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view)
    bint PyMemoryView_Check(object view)

cdef extern from "sys/socket.h" nogil:
    ssize_t c_recv "recv"(int fd, void *data, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *data, size_t size, int flags)
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t
    cdef struct sockaddr:
        sa_family_t sa_family
    cdef struct sockaddr_storage:
        sa_family_t ss_family
    int SOCK_STREAM
    int AF_INET

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        unsigned int s_addr
    cdef struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    unsigned short ntohs(unsigned short port)

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)

cdef extern from "sys/epoll.h" nogil:
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int nanosleep(const timespec *wanted, timespec *left)

cdef extern from "sys/timerfd.h" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int TFD_CLOEXEC
    int TFD_NONBLOCK
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *wanted, itimerspec *before)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #ifndef SOCK_NONBLOCK
    #define SOCK_NONBLOCK 0
    #endif
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #include <errno.h>
    #include <signal.h>
    #include <time.h>
    #include <unistd.h>
    #include <sys/epoll.h>
    #include <sys/syscall.h>

    static int
    hyperpool_epoll_pwait2(int epfd, struct epoll_event *events, int most, const struct timespec *timeout)
    {
    #ifdef SYS_epoll_pwait2
        /* As the kernel wants it also where `struct timespec` has fewer bits. */
        long long span[2] = {timeout->tv_sec, timeout->tv_nsec};
        return (int)syscall(SYS_epoll_pwait2, epfd, events, most, span, NULL, (size_t)0);
    #else
        errno = ENOSYS;
        return -1;
    #endif
    }
    """
    int MSG_NOSIGNAL
    int epoll_pwait2 "hyperpool_epoll_pwait2"(int epfd, epoll_event *events, int most, const timespec *span) nogil
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)

cdef extern from "time.h" nogil:
    ctypedef int clockid_t
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(clockid_t clock, timespec *now)
    clockid_t CLOCK_MONOTONIC

MAX_EVENTS = 256
monotonic = time.monotonic

cdef object _plain = socket.socket
cdef object _close = socket.SocketType.close


cpdef int raw_descriptor(object sock) except -2:
    """See system.py."""
    return sock.fileno() if type(sock) is _plain else -1


cpdef tuple accept(object listening, int raw):
    """See system.py."""
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef int fd
    if raw < 0:
        try:
            accepted, place = listening.accept()
        except BlockingIOError:
            return None
        accepted.setblocking(False)
        return accepted, address_name(listening.family, place)
    while True:
        fd = accept4(raw, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            break
        if c_errno == EAGAIN:
            return None
        if c_errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
    try:
        # Python's own object is told that it does not block, and need not ask the kernel for what is known.
        accepted = _plain(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0, fd)
    except BaseException:
        c_close(fd)
        raise
    if address.ss_family == AF_INET:
        return accepted, _inet_name(<sockaddr_in *>&address)
    try:
        return accepted, address_name(address.ss_family, accepted.getpeername())
    except BaseException:
        accepted.close()
        raise


cdef str _inet_name(sockaddr_in *address):
    """What `address_name` makes of it: ``host:port``."""
    cdef unsigned char *host = <unsigned char *>&address.sin_addr
    cdef char text[24]
    cdef char *end = text
    cdef int part
    for part in range(4):
        end = _decimal(end, host[part])
        end[0] = c'.' if part < 3 else c':'
        end += 1
    end = _decimal(end, ntohs(address.sin_port))
    return PyUnicode_DecodeASCII(text, end - text, NULL)


cdef char *_decimal(char *end, unsigned int number) noexcept:
    """Write a number of at most five digits; returns what is behind it."""
    cdef char digits[5]
    cdef int count = 0
    while True:
        digits[count] = <char>(c'0' + number % 10)
        count += 1
        number //= 10
        if not number:
            break
    while count:
        count -= 1
        end[0] = digits[count]
        end += 1
    return end


cpdef close_socket(object sock):
    """See system.py."""
    # What Python's own `close` does besides is for sockets that files have been made of.
    if type(sock) is _plain:
        _close(sock)
    else:
        sock.close()


cpdef Py_ssize_t receive(object sock, int raw, memoryview view) except -2:
    """See system.py."""
    cdef Py_buffer *buffer
    cdef ssize_t got
    if raw < 0:
        try:
            return sock.recv_into(view)
        except BlockingIOError:
            return -1
    buffer = PyMemoryView_GET_BUFFER(view)
    while True:
        got = c_recv(raw, buffer.buf, buffer.len, 0)
        if got >= 0:
            return got
        if c_errno == EAGAIN:
            return -1
        if c_errno != EINTR:
            PyErr_SetFromErrno(OSError)
            return -2
        PyErr_CheckSignals()


cdef ssize_t _send(int raw, const char *data, Py_ssize_t end, int flags) except -2:
    cdef ssize_t sent
    while True:
        sent = c_send(raw, data, end, flags | MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        if c_errno == EAGAIN:
            return 0
        if c_errno != EINTR:
            PyErr_SetFromErrno(OSError)
            return -2
        PyErr_CheckSignals()


cpdef Py_ssize_t send(object sock, int raw, object data, Py_ssize_t end, int flags=0) except -2:
    """See system.py."""
    cdef Py_buffer view
    cdef Py_buffer *buffer
    if raw < 0:
        try:
            return sock.send(data if end == len(data) else memoryview(data)[:end], flags)
        except BlockingIOError:
            return 0
    if PyBytes_CheckExact(data):
        if end > PyBytes_GET_SIZE(data):
            end = PyBytes_GET_SIZE(data)
        return _send(raw, PyBytes_AS_STRING(data), end, flags)
    if PyMemoryView_Check(data):
        buffer = PyMemoryView_GET_BUFFER(data)
        return _send(raw, <const char *>buffer.buf, min(end, buffer.len), flags)
    if PyByteArray_CheckExact(data):
        return _send(raw, PyByteArray_AS_STRING(data), min(end, PyByteArray_GET_SIZE(data)), flags)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _send(raw, <const char *>view.buf, min(end, view.len), flags)
    finally:
        PyBuffer_Release(&view)


cpdef double read(object clock) except *:
    """See system.py."""
    cdef timespec now
    if clock is monotonic and not clock_gettime(CLOCK_MONOTONIC, &now):
        return now.tv_sec + now.tv_nsec * 1e-9
    return clock()


cdef class Poller:
    """See system.py."""

    def __init__(self):
        self._epoll = epoll()
        self._descriptor = self._epoll.fileno()
        self._count = 0
        self._armed = self._stirred = False
        self._timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self._timer < 0:
            PyErr_SetFromErrno(OSError)
        self._epoll.register(self._timer, EPOLLIN | EPOLLET)

    @property
    def closed(self):
        return self._epoll.closed

    def fileno(self):
        return self._epoll.fileno()

    cpdef int register(self, int fd, unsigned int mask) except -1:
        return self._control(EPOLL_CTL_ADD, fd, mask)

    cpdef int modify(self, int fd, unsigned int mask) except -1:
        return self._control(EPOLL_CTL_MOD, fd, mask)

    cdef int _control(self, int operation, int fd, unsigned int mask) except -1:
        cdef epoll_event event
        event.events = mask
        event.data.fd = fd
        if epoll_ctl(self._descriptor, operation, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    def unregister(self, int fd):
        self._epoll.unregister(fd)

    def close(self):
        if self._timer >= 0:
            c_close(self._timer)
            self._timer = -1
        self._descriptor = -1
        self._epoll.close()

    cpdef int wait(self, double timeout) except -1:
        # One timer for many waits: a wait with a timeout of its own would set the processor's clock to it, and back,
        # each time, which takes longer than all that is done with an event.
        cdef int count
        self._count = 0
        while True:
            if timeout <= 0:
                count = epoll_wait(self._descriptor, self._events, 256, 0)
            else:
                if not self._armed:
                    self._arm(timeout)
                with nogil:
                    count = epoll_wait(self._descriptor, self._events, 256, -1)
            if count < 0:
                if c_errno != EINTR:
                    PyErr_SetFromErrno(OSError)
                    return -1
                PyErr_CheckSignals()
                continue
            if self._armed:
                count = self._without_timer(count)
            if count or timeout <= 0 or (not self._armed and not self._stirred):
                self._stirred = True
                self._count = count
                return count

    cdef int _arm(self, double timeout) except -1:
        cdef itimerspec span
        span.it_interval.tv_sec = span.it_interval.tv_nsec = 0
        span.it_value.tv_sec = <long>timeout
        span.it_value.tv_nsec = <long>((timeout - span.it_value.tv_sec) * 1e9) or 1
        if timerfd_settime(self._timer, 0, &span, NULL) < 0:
            PyErr_SetFromErrno(OSError)
        self._armed = True
        self._stirred = False
        return 0

    cdef int _without_timer(self, int count) noexcept:
        """Take the timer's event out of those that have come; returns how many are left."""
        cdef int number
        for number in range(count):
            if self._events[number].data.fd == self._timer:
                self._events[number] = self._events[count - 1]
                self._armed = False
                return count - 1
        return count

    cpdef int rest(self, double timeout) except -1:
        cdef int count
        cdef timespec span
        span.tv_sec = 0
        span.tv_nsec = <long>(timeout * 1e9)
        self._count = 0
        with nogil:
            count = epoll_pwait2(self._descriptor, self._events, 256, &span)
            if count < 0 and (c_errno == ENOSYS or c_errno == EPERM):
                # Linux before 5.11, or a filter of system calls that is as old: what comes is seen a little later.
                nanosleep(&span, NULL)
                count = epoll_wait(self._descriptor, self._events, 256, 0)
        if count >= 0:
            if self._armed:
                count = self._without_timer(count)
            self._count = count
            return count
        if c_errno != EINTR:
            PyErr_SetFromErrno(OSError)
            return -1
        PyErr_CheckSignals()
        return 0

    cpdef forget(self, int fd):
        cdef int number
        for number in range(self._count):
            if self._events[number].data.fd == fd:
                self._events[number].data.fd = -1

    cpdef int fd(self, int number) except -2:
        if not 0 <= number < self._count:
            raise IndexError("no such event")
        return self._events[number].data.fd

    cpdef long mask(self, int number) except -2:
        if not 0 <= number < self._count:
            raise IndexError("no such event")
        return self._events[number].events
