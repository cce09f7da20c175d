"""In: a row as its source has it. Out: a RawExample, with its messages and names.

- conversation: messages, and the RawExample that holds them
- columns: the columns of a source, read into a RawExample
"""
