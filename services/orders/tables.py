"""All tables of orders, in one metadata: those of every aggregate."""

from services.orders.base import metadata
from services.orders.families import tables as families
from services.orders.invoices import tables as invoices
from services.orders.lessons import tables as lessons
from services.orders.objections import tables as objections
from services.orders.purchases import tables as purchases
from services.orders.refunds import tables as refunds

__all__ = ["families", "invoices", "lessons", "metadata", "objections", "purchases", "refunds"]
