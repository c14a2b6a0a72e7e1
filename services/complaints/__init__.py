"""complaints: complaints (投诉) and reports (举报), from the filing to the last step.

Owns the filings, the history of their steps and their clocks in working days, and a small copy of orders (which
account each belongs to). Hears the requests of guardians, anonymous reporters and authorities, `PurchaseEnrolled` of
orders, and its own timers. Says `FilingMoved`, and has escrow suspend an order's releases while a complaint is open.
"""
