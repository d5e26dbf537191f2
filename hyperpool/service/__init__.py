"""The composition root: settings become a running pooler."""

from hyperpool.service.process import Manner
from hyperpool.service.start import serve

__all__ = ["Manner", "serve"]
