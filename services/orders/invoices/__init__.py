"""Invoices (发票): owed for each fee that was released and paid out → issued by the institution → red-lettered (红冲).

What is owed is nowhere written: it is each lesson, and what is kept of a refund, that was paid out and has no issued
invoice, so a settlement costs no row more. No timer watches it either: what is owed for too long stands in the
institution's overdue list, which the institution and the authority read.
"""
