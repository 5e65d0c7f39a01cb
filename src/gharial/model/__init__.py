"""The values that all rooms share: places, plans, callers, findings, errors.

Nothing here does anything to the world: no I/O, no clock, no randomness, no logging, and no import of another room.
"""
