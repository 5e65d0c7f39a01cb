"""Readers: bytes and a plan in, bytes and findings out.

Pure: a reader meets every value exactly once, copies what no step changes verbatim, and refuses what it can't read.
It must not know policies, keys or callers.
"""
