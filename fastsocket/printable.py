"""Make text from others harmless for a terminal, such as the names of files and processes."""


def printable(text: str) -> str:
    r"""A text as one line without control characters.

    Escape sequences, line breaks and bytes that are no text are spelled out, as in \x1b, \n and \udcff, so that a
    reader can still tell what they were.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
