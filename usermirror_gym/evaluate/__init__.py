"""How far a user can be trusted, and how recommenders do in front of it."""
