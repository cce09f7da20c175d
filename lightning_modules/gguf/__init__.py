"""The trained model as a GGUF file for llama.cpp, Ollama and other programs.

In: a ThinkTuner with its weights. Out: a folder with a GGUF file and a model card. The file was read again and compared
with the run.

- rope: rotary positions
- layers: the layers that llama.cpp computes as transformers does, and the names of their tensors
- pre_tokenizer: the known pre-tokenizer of llama.cpp that splits texts as the tokenizer does
- vocabulary: tokens with their types, merges, and the ids with a meaning
- tensor_types: F16, BF16 and Q8_0, and how far they may round
- metadata: name, license, base and data
- gguf_file: the file
- read_back: the file read again, by transformers and by a tokenizer that is built from it
- gguf_export: the folder
"""
