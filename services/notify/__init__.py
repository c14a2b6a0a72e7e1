"""notify: SMS codes (验证码), contacts, and short notices about what has happened.

Owns challenges, the phone of each account (told once, sealed to it, its own copy encrypted) and of each institution
that has named one, and every SMS from its wish to its end. Hears requests for codes, the command `SetContact`, the
request `NameContact` of institutions, and events of orders, escrow and complaints. Says `SmsSent`, and in the answer to
a right code a signed proof for orders.
"""
