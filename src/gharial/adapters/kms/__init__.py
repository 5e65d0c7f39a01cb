"""Key management services as KEKs: each wraps and unwraps the one data key of a key file, and does nothing else.

A KMS is asked when a key file is read or written; all of it blocks, so an event loop asks in a thread. Whatever goes
wrong is KekUnavailable, with the KEK's name and what to do; an answer that is not exactly right is never used. Holds no
key, and logs nothing.
"""
