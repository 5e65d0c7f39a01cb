"""One protocol or product each: Envoy, SQLite, JWKS files, apprise, the admin socket.

An adapter translates; it must not decide. Decisions are the gate's.
"""
