"""Users who are a language model, by the way its answer is read."""
