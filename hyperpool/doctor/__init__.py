"""``hyperpool doctor``: goes the way to every server once, hop by hop, and says what it finds.

It dials and logs in with the same code as the pooler (`hyperpool.pool.login.connect_to`), and learns what happens on
the way from the trace that this code keeps. `examine` decides which ways there are, `walk` goes one of them, `advice`
knows remedies, `findings` is what comes out, and `report` shows it.
"""
