"""A purchase: placed → reserved → contract drawn → signed → paid into escrow → enrolled; see `saga.py`."""
