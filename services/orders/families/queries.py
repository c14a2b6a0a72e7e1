"""Reads of families: the profile a guardian sees, and what a purchase needs to know of a family."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.orders.families.domain import (
    Account,
    Child,
    Family,
    Signer,
    mask_name,
    masked_document,
    printed_document,
)
from services.orders.families.tables import AccountRow, ChildRow, SignerRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import ChildDetails, ChildView, ProfileView, ShowProfile, SignerDetails
from shared.keys import KeyRing
from shared.messaging.work import UnitOfWork
from shared.sealing import decrypt_at_rest


async def families_of(work: UnitOfWork, account_ids: Collection[UUID], *, lock: bool = False) -> dict[UUID, Family]:
    """The family of each of `account_ids`, one statement per table; an id without account has an empty one.

    With `lock` the accounts are locked until the commit, in the order of their ids.
    """
    families = {account_id: Family(account_id) for account_id in account_ids}
    accounts = await work.load(AccountRow, Account, families.keys(), lock=lock)
    for child in await work.load_all(ChildRow, Child, accounts.keys(), by=("account_id",), lock=False):
        families[child.account_id].children[child.child_id] = child
    in_force = [(a.account_id, a.signer_version) for a in accounts.values() if a.signer_version]
    signers = await work.load_all(SignerRow, Signer, in_force, lock=False)
    for account_id, account in accounts.items():
        families[account_id].account = account
    for signer in signers:
        families[signer.account_id].signer = signer
    return families


def child_details(ring: KeyRing, family: Family, child_id: UUID) -> ChildDetails:
    """A child as recorded, in clear. Refused: child_unknown."""
    child = family.children.get(child_id)
    if child is None:
        raise Refused("child_unknown")
    return decrypt_at_rest(ring, child.details, ChildDetails)


def signer_details(ring: KeyRing, family: Family) -> SignerDetails | None:
    """The signer in force, in clear; None if there is none."""
    return decrypt_at_rest(ring, family.signer.details, SignerDetails) if family.signer else None


def profile(ring: KeyRing, family: Family) -> ProfileView:
    """The family as shown: masked, children in the order they were added."""
    views: list[ChildView] = []
    for child in sorted(family.children.values(), key=lambda child: (child.added_at, child.child_id)):
        details = child_details(ring, family, child.child_id)
        views.append(
            ChildView(
                child_id=child.child_id,
                name=mask_name(details.name),
                document=masked_document(details.document_number),
                roll_check=child.roll_check,
            )
        )
    signer = signer_details(ring, family)
    return ProfileView(
        account_id=family.account_id,
        children=tuple(views),
        signer=mask_name(signer.name) if signer else "",
        missing=family.missing,
    )


async def show_profiles(work: UnitOfWork, messages: Sequence[Message[ShowProfile]]) -> None:
    """Answers each with the profile of its own account."""
    families = await families_of(work, [message.data.account_id for message in messages])
    for message in messages:
        with work.answering(message):
            work.actor(message, "guardian", subject=message.data.account_id)
            family = families[message.data.account_id]
            if family.account is None:
                raise Refused("actor_unauthenticated")
            work.reply(message, profile(work.ring, family))


@dataclass(frozen=True, slots=True, repr=False)
class ContractParties:
    """Whom a contract names, as it prints them, whole. Its repr shows nothing."""

    child_name: str
    child_document: str
    signer_name: str
    signer_phone: str
    signer_address: str
    signer_document: str


def contract_parties(ring: KeyRing, family: Family, child_id: UUID) -> ContractParties:
    """The parties of a contract for `child_id`: documents with their kind, the phone with eleven digits.

    Refused: child_unknown, profile_incomplete (no signer).
    """
    child = child_details(ring, family, child_id)
    signer = signer_details(ring, family)
    if signer is None:
        raise Refused("profile_incomplete", "signer")
    return ContractParties(
        child_name=child.name,
        child_document=printed_document(child.document_type, child.document_number),
        signer_name=signer.name,
        signer_phone=signer.phone.removeprefix("+86"),
        signer_address=signer.address,
        signer_document=printed_document(signer.document_type, signer.document_number),
    )
