"""Wiring: which function reads and writes which catalog entry."""
