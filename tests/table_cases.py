"""What tests of tables share."""

from sniper.data.table import AnnotationTable


def same(one: AnnotationTable, other: AnnotationTable) -> bool:
    """Whether two tables hold the same, from the same folder."""
    return one.fingerprint() == other.fingerprint() and one.root == other.root
