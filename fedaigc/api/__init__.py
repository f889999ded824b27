"""What `import fedaigc` offers; see `fedaigc.__init__` for the names."""
