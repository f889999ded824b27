"""The accuracy of the prompt parser, and the nouns that the knowledge graph is built from."""
