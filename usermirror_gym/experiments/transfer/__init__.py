"""Does what is learned from a simulator hold where the users are known?"""
