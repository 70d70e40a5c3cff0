"""The protocol as values: pure code without socket, clock, greenlet or log."""
