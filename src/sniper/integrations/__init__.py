"""Other tools in our pipeline and ours in theirs: one file each, the only place that imports the tool."""
