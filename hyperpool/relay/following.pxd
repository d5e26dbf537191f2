from hyperpool.relay.backend cimport Backend
from hyperpool.wire cimport constants as wire


cdef class Following(Backend):
    pass
