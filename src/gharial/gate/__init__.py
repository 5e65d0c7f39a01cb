"""The use cases: identify, decide, rewrite, meter, record; out comes `Forward` or `Refuse`, never a third outcome.

Knows ports (`ports.py`), not products: no HTTP library, no gRPC, no database, no file format of configuration.
"""
