"""Rounds of which the server sees the sum alone: behind masks, or encrypted."""
