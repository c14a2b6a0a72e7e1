"""An objection (异议) to a lesson: raised by its guardian → answered by the institution, or not → decided.

The authority decides. It holds the fee of that lesson and nothing else. Each side has its deadline: nothing waits for
ever unseen.
"""
