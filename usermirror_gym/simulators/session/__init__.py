"""Users that are sequences of events: one vector an item, whole histories, trained on choices."""
