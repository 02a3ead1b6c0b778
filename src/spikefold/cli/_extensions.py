"""The user's modules, imported for what they register before a command looks for it."""

from spikefold.errors import ConfigError
from spikefold.registry import import_extension

OPTION = "--import"


def import_extensions(words: list[str]) -> list[str]:
    """Import what stands before the command as `--import MODULE`; the words that follow.

    Raises:
        ConfigError: if a module cannot be imported, or its name is missing.
    """
    while words and words[0].partition("=")[0] == OPTION:
        _, equals, module = words[0].partition("=")
        used = 1 if equals else 2
        if not equals:
            module = words[1] if len(words) > 1 else ""
        if not module or module.startswith("-"):
            raise ConfigError(f"{OPTION}: name a module, as in {OPTION} mylab.experiments")
        import_extension(module)
        words = words[used:]
    return words
