"""In: the name of a source. Out: rows (dicts), and the checks that need no parsing.

- builtin: built-in maths problems
- pieces: files as units and pieces, the smallest parts that are read
- sampling: the order of the rows of local files
- arrow_files: rows of parquet and arrow files, damaged ones included
- text_files: bytes and texts of files; .csv and .tsv
- json_files: rows of JSON lines and arrays
- folders: the files that a name stands for; splits of folders
- files: local files as one stream of rows
- sources: built-in, local and hub sources behind one interface
- filters: the conditions of data.filters
- near_duplicates: near duplicates between training and held-out instructions
"""
