"""Who lives in a simulation: an institution with some courses, its neighbour, and families that can buy. Made once, by
messages."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, cast

from ops.scenario import Guardian, Institution, Scenario
from shared.actors import Actor, issue_proof
from shared.contracts.catalog import CourseView, Disclosure, InstitutionView, LookUpInstitution
from shared.contracts.notify import Phone
from shared.contracts.orders import SignedIn, SignIn
from shared.contracts.types import RefundTerms
from shared.ids import derived_id
from shared.keys import KeyRing
from shared.messaging.rpc import GatewayClient
from shared.sealing import seal
from tests.simulation.model import PENALTY_BASIS_POINTS
from tests.simulation.simulation import STARTS, Simulation

GUARDIANS: Final = 2
LESSONS: Final = 3
COURSES: Final = ((20, 1), (20, 10), (1, 10), (20, 25), (20, 10))
"""Seats, and days until the first lesson: a course that begins soon, one that can be bought for long, one of these with
a last seat, and one that can always be bought; and the neighbour's."""
LATE_COURSE: Final = 3
OF_NEIGHBOUR: Final = 4
PRICE_FEN: Final = 170_000
"""Three lessons do not divide it: the last one costs two fen more. A third order of one child breaks the limit of 5 000
yuan, until enough lessons of the others are consumed."""
AUTHORITY: Final = Actor("changzhou-edu", "authority")


@dataclass(frozen=True)
class People:
    """Everybody who asks for something."""

    institution: Institution
    disclosure: Disclosure
    neighbour: Institution
    """Whom nobody freezes or moves to another bank, and who is always paid at once."""
    courses: dict[datetime, tuple[CourseView, ...]]
    """By the day on which a history begins."""
    guardians: tuple[Actor, ...]

    @property
    def neighbours(self) -> dict[str, str]:
        """Course → institution."""
        courses = [str(courses[OF_NEIGHBOUR].course_id) for courses in self.courses.values()]
        return dict.fromkeys(courses, str(self.neighbour.institution_id))

    @property
    def institution_actor(self) -> Actor:
        """Who files lessons."""
        return Actor(str(self.institution.institution_id), "institution")


class _Scenario(Scenario):
    """The demo's gateway, with a simulation behind it in place of Kafka."""

    def __init__(self, simulation: Simulation) -> None:
        keys = simulation.folder / "keys"
        super().__init__(cast(GatewayClient, simulation), keys, Path("no SMS is sent"), seed=1)
        self.simulation = simulation
        self._notify = KeyRing.load(keys, "notify")

    def now(self) -> datetime:
        return self.simulation.now

    async def sign_in(self, phone: str | None = None) -> Guardian:
        """With the proof that notify gives to who has typed the right code."""
        assert phone is not None
        sealed = seal(self._notify, "orders", Phone(phone=phone)).jwe
        claims = {"challenge_id": str(derived_id("challenge", phone)), "phone": sealed}
        proof = issue_proof(self._notify, audience="orders", claims=claims, now=self.now())
        answer = await self.ask(SignIn(proof=proof, agreement_version="2026-09"), SignedIn)
        return Guardian(answer.account_id, phone, answer.token)


async def move_in(simulation: Simulation) -> People:
    """Everybody, as they stand at the beginning of each history."""
    scenario = _Scenario(simulation)
    institution = await scenario.open_institution("常州蓝天体育培训中心")
    neighbour = await scenario.open_institution("常州绿地体育培训中心")
    sellers = [*[institution] * OF_NEIGHBOUR, neighbour]
    terms = RefundTerms(penalty_basis_points=PENALTY_BASIS_POINTS)
    courses: dict[datetime, tuple[CourseView, ...]] = {}
    for start in STARTS:
        of_start: list[CourseView] = []
        for seller, (seats, days) in zip(sellers, COURSES, strict=True):
            await simulation.set_clock(start + timedelta(days=days - 1))  # it begins the day after it is published
            seller.token = scenario.token("institution", str(seller.institution_id))  # the last one has expired
            title = f"少儿篮球{seats}人班"
            offer = scenario.publish_course(
                seller, title, lessons=LESSONS, price_fen=PRICE_FEN, seats=seats, refund_terms=terms
            )
            of_start.append(await offer)
        courses[start] = tuple(of_start)
    guardians = [await scenario.new_guardian(f"+8613900000{number:03}") for number in range(GUARDIANS)]
    actors = tuple(Actor(str(guardian.account_id), "guardian") for guardian in guardians)
    shown = await scenario.ask(LookUpInstitution(query=institution.name), InstitutionView)
    return People(institution, shown.disclosure, neighbour, courses, actors)
