"""The composition root: settings become a running pooler."""

from hyperpool.service.run import serve

__all__ = ["serve"]
