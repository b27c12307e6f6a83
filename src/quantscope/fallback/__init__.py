"""Which ops to leave in float: how much each one matters at the output, and the search for the smallest set."""
