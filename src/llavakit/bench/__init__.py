"""How fast it is here: what each job costs, what the machine could do at best, and what others take for the same."""
