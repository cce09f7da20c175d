"""What other servers need beside the exported weights.

In: the template and the tokenizer of a run. Out: text files of the exported folder.

- think_blocks_parser: the parser for vLLM; a copy of this file lies beside the weights
- vllm_parser: that copy, with the tags and the prompt of a run
- modelfile: the Modelfile for Ollama
- one_block: whether a run writes one think block in an answer
- ollama_weights: whether Ollama reads the weights itself
- ollama_file: the Modelfile of a run
"""
