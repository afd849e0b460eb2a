"""Broken and hostile files for everything that reads files: each must end in a sound result or in an error of energax.

`python -m tests.adversary --cases 10000` tries many; `test_adversary.py` a few hundred. What is tried is in `targets/`,
one module for each kind of file: a new target is one call of `register` in any module there.
"""
