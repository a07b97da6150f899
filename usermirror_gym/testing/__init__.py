"""Contract tests and tiny data that third-party agents, engines and environments can use."""
