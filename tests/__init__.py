"""The test suite of hyperpool."""
