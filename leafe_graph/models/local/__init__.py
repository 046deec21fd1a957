"""A model in this process: concurrent calls share batches, prompts share their prefixes.

Torch is imported where it is used.
"""
