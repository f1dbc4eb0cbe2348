"""Other people's words, made harmless for a terminal: names of files and processes, and what is said of them."""


def printable(text: str) -> str:
    r"""One line without control characters: an escape sequence, a line break, or a byte that is no text is spelled out,
    as in \x1b, \n and \udcff, so that what it was can still be told."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
