"""Which benchmark items lie in a corpus, and which of its records to leave out for that."""
