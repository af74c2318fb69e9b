"""Our models in the formats of others. Each writer gives what its format cannot say as sentences for the user."""
