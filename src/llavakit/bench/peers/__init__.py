"""Us beside others: the same shapes, threads and prompt, by turns in one run, each in a process of its own."""
