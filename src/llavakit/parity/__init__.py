"""Whether two checkpoints are the same model: both look at the same pictures, and every stage is compared."""
