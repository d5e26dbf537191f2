cpdef Py_ssize_t length_at(object buf, Py_ssize_t at) except -1
cpdef int byte_at(object buf, Py_ssize_t at) except -1
cpdef bytes part(object buf, Py_ssize_t at, Py_ssize_t end)
cpdef bint matches(object buf, Py_ssize_t at, Py_ssize_t end, bytes what) except -1
cpdef bytes text_at(object buf, Py_ssize_t at, Py_ssize_t end)
cpdef bytes renamed(object buf, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t end, bytes name)
cpdef Py_ssize_t hop(object buf, Py_ssize_t at, Py_ssize_t end, bytes passing) except -1
