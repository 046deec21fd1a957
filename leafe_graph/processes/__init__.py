"""Calls and commands in processes of their own, which end with their parent.

Floor 3: it may know the floors below.
"""
