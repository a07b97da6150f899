"""Which events become scenes, and what stands on their lists."""
