"""Meshes of devices, what lies where on them, and several processes of a run."""
