"""A scene in words: domain templates, prompts, rationales."""
