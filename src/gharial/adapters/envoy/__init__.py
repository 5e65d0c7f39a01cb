"""Envoy: its configuration, its process, and the `ext_proc` protocol that attaches the gate to it."""
