"""What several processes must agree on so that they are one pooler. Sans-IO, but for `link`.

::

    supervisor: Permits (server connections), Seats (clients), Errands (questions to all)
        │ one socket pair per worker, JSON frames (`messages`)
    worker: Holdings (its permits), Places (its seats)
"""
