"""What is measured: one object per scenario, each knows how to measure one target once."""
