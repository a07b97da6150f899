"""Parts of ``benchmarks/engine_throughput.py``: questions, ways of asking, limits, tables."""
