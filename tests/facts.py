"""What a message must name, whatever its words."""

import re


def facts(*needed: str | int) -> str:
    """A pattern for ``pytest.raises(match=...)``: every fact occurs, in any order, and not as part of a word or number.

    A fact is what the user needs and the code knows: a file, an id, a line, what was expected, what came, a setting to
    change. Sentences around them may be written anew without a test that fails.
    """
    parts = (rf"(?=.*(?<![^\W_]){re.escape(str(fact))}(?![^\W_]))" for fact in needed)
    return "(?s)^" + "".join(parts)
