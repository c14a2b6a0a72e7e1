"""The metadata of the orders service: the road's tables, and those of every aggregate that imports this `Base`."""

from typing import ClassVar

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

from shared.tables import service_metadata

metadata = service_metadata()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service stand in its own metadata."""

    metadata: ClassVar[MetaData] = metadata
