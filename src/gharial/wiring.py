"""The only place that builds the object graph."""
