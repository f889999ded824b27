"""Records, statistics, tables and plots of a study."""
