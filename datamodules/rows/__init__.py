"""In: the name of a source. Out: rows (dicts), and the checks that need no parsing.

- builtin: built-in maths problems
- arrow_files: rows of parquet and arrow files, damaged ones included
- files: local files
- sources: built-in, local and hub sources behind one interface
- filters: the conditions of data.filters
- near_duplicates: near duplicates between training and held-out instructions
"""
