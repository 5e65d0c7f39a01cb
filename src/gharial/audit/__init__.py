"""What is written down about an exchange: who, purpose, policy, techniques, people as digests; never a value.

Pure: builds and reads records; writing them durably is an adapter's job.
"""
