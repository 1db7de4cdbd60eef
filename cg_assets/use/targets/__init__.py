"""Where a registered potential can be exported to; each module is a target, by its name.

It has `write(model, folder)`, which adds an input script, other files that this needs, and returns the lines of the
README that tell how to run it.
"""

import pkgutil


def target_names() -> list[str]:
    """Targets, as they are named on the command line."""
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]
