"""bank: the stand-in that plays all supervising banks (监管银行) in demos and tests.

Owns its own book: accounts of every bank, immutable entries, and the behaviours an operator has set (slow, refusing,
silent, paying twice, …). Hears `Instruct` on `bank.instructions.v1` and its own timers; says `Result` on
`bank.results.v1`, and nothing else to anybody. Replaced by a real connection, it leaves no trace in the services.
"""
