"""A diagnosis as a document, as tables, in the terminal and in a notebook."""
