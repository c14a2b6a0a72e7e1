"""orders: families, their purchases, their lessons, and what becomes of the fee: objections, refunds, invoices.

Owns accounts, children and signers (`families/`), the purchase from the click to the seat in the course (`purchases/`,
a saga that is a table one can read), each lesson from its application to its pay-out (`lessons/`), objections until an
authority has decided them (`objections/`), refunds until the bank has paid (`refunds/`), and the invoice that is owed
for what was released (`invoices/`). Hears gateways, the answers of catalog, events of escrow, and its own timers. Says
`ContractDrawn`, `PurchaseEnrolled`, `PurchaseEnded`, `LessonApplied`, `LessonWaiting`, `LessonConfirmed`,
`LessonObjected`, `ObjectionMoved`, `RefundMoved`, `WoundUp`, `InvoiceChanged`; commands catalog (seats), escrow (money)
and notify (contacts).
"""
