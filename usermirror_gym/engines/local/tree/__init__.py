"""One forward pass over prompts that share beginnings."""
