"""A lesson: planned → applied for by the institution → confirmed by the guardian (or objected to) → paid out."""
