"""Calls and commands in processes of their own, which end with their parent.

It knows errors.
"""
