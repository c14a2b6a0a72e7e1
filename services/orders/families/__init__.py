"""families: who buys, for whom, and who signs.

Owns accounts (a phone each), the agreements they ticked, their children and the versions of their signer
(合同签订人). Hears `SignIn`, `AddChild`, `SetSigner`, `ShowProfile` of guardians. Says `SetContact` to notify, once for
each account. Everything personal is encrypted at rest and masked in every answer; only a contract prints it whole.
"""
