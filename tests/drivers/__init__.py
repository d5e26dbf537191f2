"""Applications' usual drivers with their default settings, directly and through the pooler: one checklist."""
