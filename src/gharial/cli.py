"""The command line: parses arguments, calls one thing, prints."""
