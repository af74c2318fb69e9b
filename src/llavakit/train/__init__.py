"""The two stages of LLaVA, and the two that its parts come from; one loop for all."""
