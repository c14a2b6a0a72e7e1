"""All tables of orders, in one metadata: those of families, purchases, lessons and refunds."""

from services.orders.base import metadata
from services.orders.families import tables as families
from services.orders.lessons import tables as lessons
from services.orders.purchases import tables as purchases
from services.orders.refunds import tables as refunds

__all__ = ["families", "lessons", "metadata", "purchases", "refunds"]
