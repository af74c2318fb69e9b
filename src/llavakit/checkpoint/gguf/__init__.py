"""Models as llama.cpp reads them: a GGUF file of the language model, and beside it one of tower and projector."""
