"""All that orders hears: the handlers of its parts."""

from services.orders.families.handlers import handlers as families
from services.orders.lessons.handlers import handlers as lessons
from services.orders.objections.handlers import handlers as objections
from services.orders.purchases.handlers import handlers as purchases
from shared.messaging.handlers import Handlers

handlers = Handlers("orders")
handlers.include(families)
handlers.include(purchases)
handlers.include(lessons)
handlers.include(objections)
