"""Circuits that several processes share: the record, how writes are merged, and who writes and reads it."""
