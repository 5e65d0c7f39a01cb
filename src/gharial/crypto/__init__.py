"""Keys and techniques: a step of a plan becomes a function from value to value.

Pure: cryptography comes from libraries only; randomness is handed in; key material lives in `keyset` alone and never
prints or pickles. It must not read files or know payload formats.
"""
