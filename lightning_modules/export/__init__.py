"""The trained model as a folder for transformers, or as an adapter for peft.

In: a ThinkTuner with its weights. Out: a folder that was read again and compared with the run.

- card_facts: the facts in a model card
- hub_cards: what the cards of the base and of the data say
- hub_metadata: the part of a model card that the hub reads
- card_use: the part that says how to run the model
- card: the model card
- folder: a new folder, which appears as a whole
- tokenizer_files: the tokenizer with the chat template
- rounding: the weights in the dtype of the export
- check: what the run computes for some prompts, compared with what the written folder computes
- merged: the merged model
- adapter: an adapter for the base
- push: the upload to the hub
"""
