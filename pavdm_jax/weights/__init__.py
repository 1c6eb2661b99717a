"""Weights of other systems: what is in their files, and how it becomes parameters of the networks here."""
