"""Refunds (退费) of paid orders: quoted, asked for, answered, decided, tracked until the bank has paid; and the winding
up of an institution that is gone, which refunds all its orders in bulk."""
