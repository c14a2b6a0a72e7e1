"""catalog on the real servers: an authority freezes an institution and thaws it; a freeze ends by itself."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.actors import Actor
from shared.contracts.catalog import FreezeInstitution, InstitutionFrozen, InstitutionThawed, ThawInstitution
from shared.ids import new_id
from tests.catalog_samples import an_offer
from tests.harness import Harness, is_problem
from tests.integration.test_catalog import AUTHORITY, GUARDIAN, Catalog, of

A_WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
async def catalog(harness: Harness) -> AsyncIterator[Catalog]:
    async with harness.service("catalog"):
        catalog = Catalog(harness)
        await harness.until(catalog.nothing_is_due)
        yield catalog


def freeze(catalog: Catalog, institution_id: UUID, ahead: timedelta = A_WEEK) -> FreezeInstitution:
    return FreezeInstitution(institution_id=institution_id, until=catalog.harness.now() + ahead, reason="涉嫌卷款")


def thaw(institution_id: UUID) -> ThawInstitution:
    return ThawInstitution(institution_id=institution_id, reason="已核查")


async def said(catalog: Catalog, institution_id: UUID) -> list[str]:
    """The types of what was told of freezes and their ends, in order."""
    sql = "SELECT type FROM outbox WHERE key = $1 AND type = ANY($2) ORDER BY seq"
    types = [InstitutionFrozen.TYPE, InstitutionThawed.TYPE]
    return [row["type"] for row in await catalog.harness.rows("catalog", sql, str(institution_id), types)]


async def test_a_frozen_institution_sells_no_seat_and_publishes_nothing(catalog: Catalog) -> None:
    institution = await catalog.listed()
    course = await catalog.published(institution)
    kept = await catalog.reserved(course.course_id)
    ask = freeze(catalog, institution.institution_id)
    view: Any = await catalog.harness.ask(ask, AUTHORITY)
    assert view.frozen_until == ask.until
    assert is_problem(await catalog.reserve(course.course_id), "institution_frozen")
    offer = an_offer(catalog.harness.now(), institution.institution_id)
    assert await catalog.code(offer, of(institution)) == "institution_frozen"
    assert await catalog.state(kept) == "reserved"

    view = await catalog.harness.ask(thaw(institution.institution_id), AUTHORITY)
    assert view.frozen_until is None
    await catalog.reserved(course.course_id)
    assert await said(catalog, institution.institution_id) == [InstitutionFrozen.TYPE, InstitutionThawed.TYPE]


async def test_only_an_authority_freezes_and_thaws(catalog: Catalog) -> None:
    institution = await catalog.listed()
    institution_id = institution.institution_id
    for actor in (None, GUARDIAN, of(institution), Actor("operator-1", "operator")):
        for ask in (freeze(catalog, institution_id), thaw(institution_id)):
            assert await catalog.code(ask, actor) in ("actor_unauthenticated", "actor_forbidden")


async def test_a_freeze_that_cannot_be_is_refused_and_changes_nothing(catalog: Catalog) -> None:
    institution = await catalog.listed()
    for ahead in (timedelta(days=-1), timedelta(days=200)):
        assert await catalog.code(freeze(catalog, institution.institution_id, ahead), AUTHORITY) == "freeze_until"
    nobody = new_id()
    assert await catalog.code(freeze(catalog, nobody), AUTHORITY) == "institution_not_registered"
    assert await catalog.code(thaw(nobody), AUTHORITY) == "institution_not_registered"
    await catalog.set_state(institution.institution_id, "suspended", "检查")
    await catalog.set_state(institution.institution_id, "closed", "注销")
    assert await catalog.code(freeze(catalog, institution.institution_id), AUTHORITY) == "institution_state"


async def test_a_freeze_ends_by_itself_and_a_longer_one_at_its_own_end(catalog: Catalog) -> None:
    short, long = await catalog.listed(), await catalog.listed()
    for institution in (short, long):
        await catalog.harness.ask(freeze(catalog, institution.institution_id), AUTHORITY)
    await catalog.harness.ask(freeze(catalog, long.institution_id, 2 * A_WEEK), AUTHORITY)

    async def thawed(institution_id: UUID) -> bool:
        return (await said(catalog, institution_id))[-1] == InstitutionThawed.TYPE

    await catalog.advance(A_WEEK + timedelta(minutes=1))
    await catalog.harness.until(lambda: thawed(short.institution_id))
    assert not await thawed(long.institution_id)
    await catalog.advance(A_WEEK)
    await catalog.harness.until(lambda: thawed(long.institution_id))
    frozen_twice = [InstitutionFrozen.TYPE, InstitutionFrozen.TYPE, InstitutionThawed.TYPE]
    assert await said(catalog, long.institution_id) == frozen_twice
