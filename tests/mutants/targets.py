"""What is mutated, and which test files test it: the one place that knows.

The first file of a module is its own; the others notice what it lets through.
"""

from typing import Final

GOAL: Final = 85.0
"""Of all mutants, per cent."""
MONEY_GOAL: Final = 90.0
MONEY: Final = frozenset(
    {
        "services/escrow/domain.py",
        "services/escrow/ledger.py",
        "services/orders/purchases/saga.py",
        "services/orders/refunds/domain.py",
        "shared/money.py",
        "ops/bank/book.py",
    }
)

_ROAD: Final = ("integration/test_road_batch.py", "integration/test_road_consume.py")
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "services/escrow/domain.py": (
        "unit/test_escrow_domain.py",
        "unit/test_escrow_refunds.py",
        "unit/test_escrow_settlements.py",
        "unit/test_escrow_suspense.py",
        "property/test_instruction_numbers.py",
        "property/test_ledger.py",
    ),
    "services/escrow/ledger.py": ("integration/test_escrow.py",),
    "services/orders/purchases/domain.py": ("unit/test_orders_purchases.py", "unit/test_orders_saga.py"),
    "services/orders/purchases/saga.py": ("unit/test_orders_saga.py", "property/test_saga.py"),
    "services/orders/lessons/domain.py": ("unit/test_orders_lessons.py",),
    "services/orders/objections/domain.py": ("unit/test_orders_objections.py", "unit/test_orders_lessons.py"),
    "services/orders/refunds/domain.py": ("unit/test_orders_refunds.py",),
    "services/orders/invoices/domain.py": ("unit/test_orders_invoices.py",),
    "services/orders/purchases/limits.py": ("unit/test_orders_limits.py",),
    "services/orders/families/domain.py": ("unit/test_families_domain.py",),
    "services/catalog/domain.py": (
        "unit/test_catalog_domain.py",
        "unit/test_catalog_freeze.py",
        "property/test_seats.py",
    ),
    "services/complaints/domain.py": ("unit/test_complaints_domain.py",),
    "services/notify/domain.py": ("unit/test_notify_domain.py", "unit/test_notify_reminders.py"),
    "ops/bank/book.py": ("unit/test_bank_book.py",),
    "ops/bank/behaviour.py": ("unit/test_bank_book.py",),
    "shared/money.py": ("unit/test_money.py", "property/test_money_properties.py"),
    "shared/policy.py": (
        "unit/test_policy.py",
        "property/test_policy_properties.py",
        "unit/test_routing.py",
        "unit/test_catalog_domain.py",
        "unit/test_complaints_domain.py",
        "unit/test_notify_reminders.py",
        "unit/test_orders_contract.py",
        "unit/test_orders_lessons.py",
        "unit/test_orders_objections.py",
    ),
    "shared/working_days.py": ("unit/test_working_days.py", "property/test_working_days_properties.py"),
    "shared/documents.py": ("unit/test_documents.py", "property/test_documents_properties.py"),
    "shared/ids.py": ("unit/test_ids.py", "property/test_instruction_numbers.py", "unit/test_bank_book.py"),
    "shared/timers.py": ("integration/test_road_due.py", "integration/test_road_timers.py"),
    "shared/messaging/inbox.py": ("unit/test_road_rows.py", *_ROAD),
    "shared/messaging/outbox.py": ("unit/test_road_rows.py", *_ROAD),
    "shared/messaging/sets.py": ("unit/test_road_rows.py", "integration/test_road_sets.py", *_ROAD),
    "shared/messaging/work.py": ("unit/test_road_work.py", *_ROAD),
    "shared/messaging/consume.py": ("unit/test_road_decode.py", *_ROAD),
    "shared/messaging/handlers.py": ("unit/test_road_handlers.py", "property/test_road_properties.py", *_ROAD),
    "shared/messaging/progress.py": ("unit/test_road_watchdog.py",),
    "shared/messaging/relay.py": (
        "unit/test_road_relay.py",
        "integration/test_road_rounds.py",
        "integration/test_road_relay.py",
        *_ROAD,
    ),
    "shared/messaging/dead_letter.py": ("unit/test_road_dead_letter.py", *_ROAD),
}
TESTS: Final = {path: tuple(f"tests/{name}" for name in dict.fromkeys(names)) for path, names in _NAMES.items()}

TIMED: Final = "tests/unit/test_road_watchdog.py"
"""Looks at a thread by the clock."""


def module_of(path: str) -> str:
    """The name under which a file is imported."""
    return path.removesuffix(".py").replace("/", ".")


def needs_servers(test_file: str) -> bool:
    """Whether a test file needs Kafka and PostgreSQL, and the fixtures of conftest.py."""
    return test_file.startswith("tests/integration/")
