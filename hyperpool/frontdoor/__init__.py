"""Where clients come in: listeners, startup, authentication."""
