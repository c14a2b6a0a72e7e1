"""catalog: who may teach and what is on offer.

Owns institutions (白名单, with the history of their states and disclosures), courses, and the seats of each course.
Hears authorities (register, disclose, list, suspend, close), institutions (publish), everybody (look up, show, search),
and the seat commands of orders. Says `InstitutionChanged`, `CoursePublished` and `SeatExpired`. The last seat is sold
once, and nothing is sold by an institution that is not listed or whose licence is not in force.
"""
