from hyperpool.relay.shortcut cimport Shortcut
from hyperpool.wire cimport constants as wire


cdef class Failures(Shortcut):
    pass
