"""orders: families, their purchases and their lessons.

Owns accounts, children and signers (`families/`), the purchase from the click to the seat in the course (`purchases/`,
a saga that is a table one can read), and each lesson from its application to its pay-out (`lessons/`). Hears gateways,
the answers of catalog, the events of escrow, and its own timers. Says `ContractDrawn`, `PurchaseEnrolled`,
`PurchaseEnded`, `LessonApplied`, `LessonObjected`; commands catalog (seats), escrow (money) and notify (contacts).
"""
