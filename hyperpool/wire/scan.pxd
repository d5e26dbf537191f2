cpdef Py_ssize_t length_at(object buf, Py_ssize_t at) except -1
cpdef bytes text_at(bytearray buf, Py_ssize_t at, Py_ssize_t end)
cpdef Py_ssize_t hop(object buf, Py_ssize_t at, Py_ssize_t end, bytes passing) except -1
