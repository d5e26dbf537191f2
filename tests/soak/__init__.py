"""An hour of mixed load, with faults made all the while: no wrong answer, no unexplained error, no leak.

``python -m tests.soak --hours 1``
"""
