from hyperpool.pool.places cimport Places
from hyperpool.pool.statements cimport ServerStatements, Statement
from hyperpool.relay.connection cimport Connection
from hyperpool.relay.ledger cimport Ledger
from hyperpool.relay.parameters cimport ParameterSet
from hyperpool.wire cimport constants as wire

cdef class Backend(Connection)

from hyperpool.relay.frontend cimport Frontend


cdef class Backend(Connection):
    cdef public Places pool
    cdef public str address
    cdef public Frontend client
    cdef public Ledger ledger
    cdef public int status
    cdef public bint settled
    cdef public bytes said
    cdef public bint held
    cdef public object errand
    cdef public dict _rejection
    cdef public list _resets
    cdef public bint _tainted
    cdef public dict _parameters
    cdef public dict _defaults
    cdef public double _defaults_since
    cdef public bytes restoring
    cdef public int tries
    cdef public dict begun
    cdef public bint has_reset
    cdef public str purpose
    cdef public object refusal
    cdef public int cancels
    cdef public str retiring
    cdef public bint outdated
    cdef public bint failing
    cdef public ParameterSet tracked
    cdef public ServerStatements statements
    cdef public Statement unnamed
    cdef public bint worked
    cdef public object replay
    cdef public bytes described
    cdef public bytes expected
    cdef public object suspicion
    cdef public object asking
    cdef public object pinned
    cdef public bint granted
    cdef public object pid
    cdef public object secret
    cdef public double linked
    cdef public double asked
    cdef public double began
    cdef public double answered
    cdef public double idle_since
    cdef public double expires
    cdef public object writes
    cdef public object prepared

    cpdef bint take(self, Frontend client, object buffer, Py_ssize_t end) except -1
    cpdef bint goes_on(self, Frontend client) except -1
    cpdef finish(self)
