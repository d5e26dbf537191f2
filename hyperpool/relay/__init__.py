"""The data plane: one event loop that drives every established connection. See `hyperpool.relay.loop`."""
