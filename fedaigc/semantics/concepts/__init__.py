"""Map words to concepts: the knowledge graph, the parser, and the vocabulary that may leave a device."""
