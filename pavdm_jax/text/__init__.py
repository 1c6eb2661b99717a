"""Captions to features of the text encoder."""
