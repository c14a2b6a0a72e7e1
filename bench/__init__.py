"""`make bench`: how fast the whole system is on this machine, measured on the embedded stack with fsync on.

A figure is taken in one run on one machine and means little elsewhere; ratios inside one run mean more. Nothing here is
a test: what must be right is checked after the load, what must be fast is read by a person.
"""
