"""Pictures, curves and pages that a person looks at. Everything takes plain arrays and tables."""
