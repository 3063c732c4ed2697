"""The one thing pyproject.toml cannot say: that the folders data/ and models/ install inside the package.

They become parfit/_data and parfit/_models in a wheel, where `parfit.datasets` looks for them first. Beside
a list of further packages, setuptools takes no `packages.find` in pyproject.toml; here it takes both.
"""

from setuptools import find_packages, setup

SHIPPED = {"parfit._data": "data", "parfit._models": "models"}

setup(packages=[*find_packages(include=["parfit", "parfit.*"]), *SHIPPED], package_dir=SHIPPED)
