"""The service under a systemd that is PID 1: ``python -m tests.systemd``."""
