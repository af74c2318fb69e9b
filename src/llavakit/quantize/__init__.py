"""A model made small: which matrices become which numbers, how scales are found, and the layers that read them."""
