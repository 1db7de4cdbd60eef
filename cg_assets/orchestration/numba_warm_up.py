"""Imported by the process that steps fork from: what numba would otherwise spend 0.3 s on in every step."""

from numba.core.registry import cpu_target

cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()
