"""What flask_chsk costs beside its neighbours: ``make bench``, or see docs/benchmarks.rst.

Servers run as processes of their own; this one is their load. What counts is the CPU time of the
server, which other work on the machine changes least, never how fast this side is.
"""
