"""Compiling programs for other chips than those of this machine, to know how much memory they need."""
