"""Amounts of memory in messages."""

__all__ = ["format_bytes"]


def format_bytes(n: int) -> str:
    """Return a number of bytes to four digits with its decimal unit, as in ``"1.234 GB"``."""
    if n < 1000:
        return f"{n} byte{'s' * (n != 1)}"
    value, units = float(n), ["kB", "MB", "GB", "TB", "PB", "EB"]
    while (value := value / 1000.0) >= 999.95 and len(units) > 1:
        del units[0]
    return f"{value:.4g} {units[0]}"
