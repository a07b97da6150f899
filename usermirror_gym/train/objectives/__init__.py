"""What a language model is trained on, one file an objective."""
