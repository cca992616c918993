cdef class Update:
    cdef public object operation
    cdef public object frame
    cdef public object value
    cdef public object overrun
    cdef public object time
    cdef public object seen
    cdef public object note
