"""Settings that choose by name: one of the known names, or several separated by commas."""

from collections.abc import Collection

from energax.exceptions import SettingError


def require_name(setting: str, name: str, known: Collection[str]) -> str:
    """The name, if it is a known one."""
    if name not in known:
        raise SettingError(f"{setting}={name!r}: give one of {', '.join(known)}")
    return name


def split_names(setting: str, names: str, known: Collection[str]) -> list[str]:
    """Names separated by commas, each a known one."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise SettingError(f"{setting}={names!r}: give some of {', '.join(known)}, separated by commas")
    return list(dict.fromkeys(given))


def split_numbers(setting: str, numbers: str) -> list[float]:
    """Numbers above 0, separated by commas."""
    try:
        given = [float(number) for number in numbers.split(",")]
    except ValueError:
        given = []
    if not given or not all(0 < number < float("inf") for number in given):
        raise SettingError(f"{setting}={numbers!r}: give finite numbers above 0, separated by commas")
    return given
