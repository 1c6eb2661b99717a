"""The networks, the tokenizer, and `Model`, which holds them together.

They know nothing of devices, noise schedules or files.
"""
