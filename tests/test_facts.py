"""The pattern of facts takes any words and order, and no part of a word or number for a fact."""

import re

from facts import facts


def test_facts_are_found_in_any_order_and_whole() -> None:
    message = "b.xml, line 12: object 1\nhas no name (expected one of 3)"
    for held in (("b.xml",), (12, "b.xml"), ("object 1", "line 12", 3), ("object", "name"), ("(expected",)):
        assert re.search(facts(*held), message)
    for missing in (("b.xm",), (1, 2), ("b.xml", 13), ("names",), ("bxxml",)):
        assert not re.search(facts(*missing), message)
