"""escrow: the money of every order, in a supervised account.

Owns the ledger (one account per order, immutable transfers), the bank instructions and what banks said of them, and how
institutions are paid: each lesson at once, or gathered in settlements. Hears the commands of orders (collect, release,
refund) and of complaints (suspend, resume), what institutions choose, and the banks' results. Says `Held`, `Released`,
`Settled`, `Refunded`, `PaymentFailed`, `PayoutReturned`, `SettlementClosed`, `SettlementPaid`, `SettlementDelayed`,
`SuspenseBooked`, and instructs banks.
"""
