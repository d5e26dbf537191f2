"""The admin console: the virtual databases ``pgbouncer`` and ``hyperpool``.

::

    FrontDoor ──socket──▶ ConsoleConnection ──bytes──▶ Conversation ──statement──▶ Console ──▶ views, Operations
                          (in the relay)               (sans-IO)                  (who may do what)
"""
