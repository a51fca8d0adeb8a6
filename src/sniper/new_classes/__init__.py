"""Classes learned from a few photos: rows of a classifier over regions that a detector finds.

R-FCN-3000 (arXiv 1712.01802), section 4.3; ``docs/new_classes.md``.
"""
