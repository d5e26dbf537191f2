"""What an operator sees at one glance, whoever shows it. Sans-IO.

::

    views of the console ──rows──▶ Collector ──panels──▶ the dashboard (in this process) and `hyperpool top` (anywhere)
                                   (with a Meter, which makes rates of counters)
"""
