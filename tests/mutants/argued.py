"""Why some mutants are let live: a reason, and for each place its file and what its line in the report looks like."""

from typing import Final

Place = tuple[str, str]
"""A file, and a regular expression for `scope: operator: before → after`."""

ARGUED: Final[dict[str, tuple[Place, ...]]] = {
    "Equal to the original for every value there can be (a clamp before a cap, a look past the end, a tie, a shape "
    "filled in before anybody reads it)": (
        ("services/escrow/domain.py", r"^next_ask: constant: 10 |^judge_collect: comparison: answer.amount_fen < "),
        ("services/orders/refunds/domain.py", r"^withdraw: arguments swapped: _require"),
        ("services/orders/purchases/saga.py", r"arguments swapped: _names\("),
        ("services/catalog/domain.py", r"^(publish|refuse_other_course): word: 'json'"),
        ("services/catalog/domain.py", r"^SeatBook._move: word: 'reserved'"),
        ("services/complaints/domain.py", r"0123456789ABCDEFGHJKMNPQRSTVWXYZXX"),
        ("services/notify/domain.py", r"^postpone: constant"),
        ("ops/bank/book.py", r"^Book\.(instruct|_begin): word: ''"),
        ("ops/bank/book.py", r"^_first: "),
        ("shared/policy.py", r"word: '(china|08-15)'"),
        ("shared/policy.py", r"^is_preschool: constant: (3|31) "),
        ("shared/policy.py", r"^promotion_fault: "),
        ("shared/policy.py", r"^check_offer: (constant: 0 |comparison: len\(sessions\) > MAX_SESSIONS)"),
        ("shared/working_days.py", r"^next_waking_time: comparison: local.time\(\) < opens"),
        ("shared/documents.py", r"10X98765432XX|check_(digit|character): constant: True|constant: 6 → 7"),
        ("shared/messaging/progress.py", r"comparison: now - .* > stuck_after_s"),
        ("shared/messaging/consume.py", r"^Consumer._decode: constant: (100|False) "),
        ("shared/messaging/consume.py", r"^Consumer._park: (arguments swapped: Poison\(reason, ''\)|word: '' )"),
        ("shared/messaging/sets.py", r"^_inserting: word: ''"),
        ("shared/messaging/inbox.py", r"^claim: comparison: len\(new\) < len\(claims\)"),
        ("shared/messaging/relay.py", r"^Relay._is_busy: comparison: "),
        ("shared/messaging/work.py", r"^UnitOfWork._put: comparison: 4 "),
        ("shared/messaging/handlers.py", r"^in_groups: constant: 1 |^each: word: 'handler'"),
        ("shared/messaging/dead_letter.py", r"word: 'yike-replay'"),
    ),
    "Noticed by every test of a service that asks who asks, none of which is run here": (
        ("shared/messaging/work.py", r"^UnitOfWork.actor: "),
    ),
    "Slower, later or oftener, and nothing else: pauses and polls, how much of a text is shown or logged, a second way "
    "to the same end": (
        ("shared/policy.py", r"^check_offer: constant: 10 "),
        ("shared/timers.py", r"^: constant: |>= next_purge|^Timers.run: constant: (0\.0|2) "),
        ("shared/messaging/inbox.py", r"^claim: and or: c.id not in new"),
        ("shared/messaging/outbox.py", r"word: 'yike_outbox'"),
        ("shared/messaging/consume.py", r"^: constant: (0.1|15.0) |constant: (50|200|300) "),
        (
            "shared/messaging/consume.py",
            r"^Consumer._answer_again: .*: (item.message is not None|item.claim.hash != known.hash)",
        ),
        (
            "shared/messaging/consume.py",
            r"^Consumer._until_it_passes: (arguments swapped: random|constant|operator)",
        ),
        (
            "shared/messaging/consume.py",
            r"^Consumer._hand_over: .*('handler'|\(group\)|group\[0\]|constant: 1 )|^_place: ",
        ),
        ("shared/messaging/relay.py", r"^: constant: |FOLLOWER_POLL_S|ROUND_S|self\._pause\b|constant: 2 → 3"),
        ("shared/messaging/relay.py", r"^Relay.(__init__|_notify): .*(_notify_again|False → True)"),
        ("shared/messaging/work.py", r"^UnitOfWork._put: constant: 4 "),
        ("services/escrow/ledger.py", r"^: constant: False "),
        (
            "shared/messaging/relay.py",
            r"^Relay.run: left out: .*_hand_over|^Relay._hand_over: left out|^Relay._publish: constant: True ",
        ),
        ("shared/messaging/relay.py", r"batch.close|synchronous_commit"),
        ("shared/messaging/relay.py", r"^Relay._lead: (operator: time.perf|constant: 0 |left out: .*(early|_woken))"),
        ("shared/messaging/handlers.py", r"^each.batch: left out: await work.write"),
    ),
}
