"""From a conversation to an answer. Begin with `reference`, the naive loop; `engine` is equal to it and fast."""
