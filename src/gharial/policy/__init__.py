"""What people write becomes what executors run: YAML -> Policy -> Plan.

Pure: reads no file, opens no payload, knows no key. It must not decide anything about a single value; it only compiles.
"""
