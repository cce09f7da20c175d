"""In: RawExamples. Out: ProcessedExamples, with token ids and roles or a reason to drop them.

- tokenizer: the model's tokenizer with the tags; Segments to ids and roles
- template: data.template to a Template
- run_template: the template of a run, kept as it was
- truncation: steps dropped from the middle of an overlong row
- process: RawExamples to ProcessedExamples, by the files above
"""
