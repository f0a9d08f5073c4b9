"""The jobs, their command line, and what they share: recipe, session, store, runs."""
