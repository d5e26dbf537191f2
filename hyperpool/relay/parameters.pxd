cdef class ParameterSet:
    cdef object __weakref__
    cdef public tuple flavor
    cdef public object values
