"""In: sources and settings. Out: a folder with the prepared rows of each split, and DataStats.

- mix: the settings of each source of a mix
- stats: counts of the rows read, kept and dropped
- pass_over_sources: one pass that fills the splits
- token_dataset: the file of prepared rows
- prepared_folder: the folder of a preparation, whose damage is found by digests
- cache: the folder, made once under a lock and again after damage
"""
