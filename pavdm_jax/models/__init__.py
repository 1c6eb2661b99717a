"""The networks, the tokenizer, and `Model`, which holds them together.

They do not depend on devices, noise schedules or files.
"""
