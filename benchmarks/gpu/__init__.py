"""Everything that a GPU must show, from one command: jobs.py, machine.py, figures.py, table.py, __main__.py."""
