"""All tables of orders, in one metadata: those of families, purchases, lessons and objections."""

from services.orders.base import metadata
from services.orders.families import tables as families
from services.orders.lessons import tables as lessons
from services.orders.objections import tables as objections
from services.orders.purchases import tables as purchases

__all__ = ["families", "lessons", "metadata", "objections", "purchases"]
