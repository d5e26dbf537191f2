"""`hyperpool top`: the overview in a terminal, of a pooler anywhere, through its console.

::

    console ◀──SHOW──▶ ConsoleSession ──rows──▶ overview.Collector ──panels──▶ screen (rich)
"""
