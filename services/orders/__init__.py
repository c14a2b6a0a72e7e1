"""orders: families, their purchases, their lessons and what is objected to.

Owns accounts, children and signers (`families/`), the purchase from the click to the seat in the course (`purchases/`,
a saga that is a table one can read), each lesson from its application to its pay-out (`lessons/`), and objections until
an authority has decided them (`objections/`). Hears gateways, the answers of catalog, the events of escrow, and its own
timers. Says `ContractDrawn`, `PurchaseEnrolled`, `PurchaseEnded`, `LessonApplied`, `LessonObjected`, `ObjectionMoved`;
commands catalog (seats), escrow (money) and notify (contacts).
"""
