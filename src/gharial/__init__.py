"""Gharial: protects the data that leaves through APIs."""

__version__ = "0.1.0"
