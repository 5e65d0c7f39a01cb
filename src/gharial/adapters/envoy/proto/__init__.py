"""Envoy's external processing messages, trimmed to what the gate speaks; generated from `ext_proc.proto`."""
