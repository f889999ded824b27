"""The documentation site: pages of the reference, notebooks, and files of the repository that pages link to."""
