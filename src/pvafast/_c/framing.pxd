"""What other compiled modules may see of a message: plain C attributes."""


cdef class Message:
    cdef readonly object data
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t end
    cdef readonly long long offset
    cdef readonly long long size
    cdef readonly unsigned char version
    cdef readonly unsigned char flags
    cdef readonly unsigned char command


cdef list receive(object framer, object data, bint *damaged)
