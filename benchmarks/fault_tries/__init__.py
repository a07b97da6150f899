"""What the fault runner (benchmarks/faults.py) breaks, and how it sees what is left."""
