"""orders: families, their purchases, their lessons and the invoices for them.

Owns accounts, children and signers (`families/`), the purchase from the click to the seat in the course (`purchases/`,
a saga that is a table one can read), each lesson from its application to its pay-out (`lessons/`), and the invoice that
is owed for it then (`invoices/`). Hears gateways, the answers of catalog, events of escrow, and its own timers. Says
`ContractDrawn`, `PurchaseEnrolled`, `PurchaseEnded`, `LessonApplied`, `LessonWaiting`, `LessonConfirmed`,
`LessonObjected`, `InvoiceChanged`; commands catalog (seats), escrow (money) and notify (contacts).
"""
