"""The result cache: which answers may be kept, for how long, and until which write."""
