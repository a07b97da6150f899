"""Are recommenders better after feedback of simulated users?"""
