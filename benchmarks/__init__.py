"""What flask_chsk costs, beside what one would pick instead: ``make bench``, or see README.rst.

Servers run as processes of their own; this one is their load. What counts is the CPU time of the
server, which other work on the machine changes least, never how fast this side is.
"""
