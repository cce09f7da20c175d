"""In: a row as its source has it. Out: RawExamples, with messages and names.

- conversation: messages, and the RawExample that holds them
- columns: the columns that a user names, and names by which others are found
- messages: the messages of a conversation, from any container
- layout: the layouts that a row of given columns may have
- reader: rows read into RawExamples
"""
