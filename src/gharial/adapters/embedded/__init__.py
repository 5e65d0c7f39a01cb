"""The gate inside an app of this process: middleware for ASGI and for WSGI. Drives exchanges, and decides nothing."""
