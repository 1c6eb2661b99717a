"""Beside pyproject.toml: the config files of `configs/` are installed, too, as `pavdm_jax.configs`."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["pavdm_jax*"]), "pavdm_jax.configs"],
    package_dir={"pavdm_jax.configs": "configs"},
)
