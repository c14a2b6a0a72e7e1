"""The base of a service's tables: SQLModel classes in a metadata of their own, with the road's tables beside them.

Each `tables.py` begins so (written out, since a type checker must see a class):

    metadata = service_metadata()

    class Base(SQLModel, registry=registry(metadata=metadata)):
        metadata: ClassVar[MetaData] = metadata
"""

from typing import Any

from sqlalchemy import DateTime, MetaData

from shared.messaging.tables import road_tables

NAMING = {
    "ix": "%(table_name)s_%(column_0_N_name)s",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}
UTC_TIME: Any = DateTime(timezone=True)
"""The type of every time column: `moment: datetime = Field(sa_type=UTC_TIME)`."""


def service_metadata() -> MetaData:
    """A metadata with inbox, outbox and timers in it."""
    metadata = MetaData(naming_convention=NAMING)
    road_tables(metadata)
    return metadata
