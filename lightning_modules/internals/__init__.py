"""Private APIs of the libraries, behind small named functions: one file per library.

Nothing else in the project reads a private attribute of torch, transformers, peft or Lightning. Each docstring says why
no public way serves. Each function has a test in tests/lightning_modules/internals, which fails when the library
changes.

Files: torch_internals.py, transformers_internals.py, peft_internals.py, lightning_internals.py.
"""
