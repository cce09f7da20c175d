"""From rows to batches. Each room is a stage, in this order; a room imports only from the rooms before it.

- rows: sources of rows, filters, near duplicates
- layouts: a row as messages
- text: messages as text: tags, response, example, steps, segments
- tokens: segments as token ids: tokenizer, template, truncation, processing of rows
- prepare: all rows of a run as token ids on disk, with statistics
- batches: prepared rows as batches: plan of an epoch, packing, collation, loader
- preview: prepared rows shown in a terminal or on a page

`magpie.py` has MagpieDataModule, which calls the rooms. `same_rows.py` refuses a resume with other rows.
"""
