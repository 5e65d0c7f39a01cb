"""Counts people per principal and says when that stops making sense.

Pure: time is handed in, durable state goes through a port of the gate. It must never see a value, only keyed digests.
"""
