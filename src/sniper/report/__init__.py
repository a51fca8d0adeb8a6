"""Pictures, curves and pages for a person. Everything takes plain arrays and tables."""
