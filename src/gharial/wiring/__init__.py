"""The only place that builds the object graph: the gate's process, the supervisor, the operator's hand.

It decides nothing about data; it connects what does. Import its modules one by one: each command loads only its own.
"""
