"""Torture: each promise of docs/reliability.md is tried in hundreds of ways. `make torture` runs all of it.

- forked: a command in a process that starts in milliseconds
- file_operations: counts the file operations of a process; kills it or fails at one of them
- inputs: a tiny base, rows in every format, template, prompts and config
- world: folders with inputs and runs, the commands, and the results that each must reach
- suite: a case, its end, and the loop over all cases
- table: tried, held and failed by kind, printed and in docs/reliability.md
- kinds: one file for each kind of torture

`python -m tests.torture --kind kills --seed 17` repeats one case.
"""
