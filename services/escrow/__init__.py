"""escrow: the money of every order, in a supervised account.

Owns the ledger (one account per order, immutable transfers), the bank instructions and what banks said of them. Hears
the commands of orders (collect, release, refund) and of complaints (suspend, resume), and the banks' results. Says
`Held`, `Released`, `Settled`, `Refunded`, `PaymentFailed`, `PayoutReturned`, `SuspenseBooked`, and instructs banks.
"""
