"""How often a model is right: a task gives questions and judges answers, and the rest asks and reports."""
