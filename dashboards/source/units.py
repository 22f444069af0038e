"""Numbers as Grafana writes them, for the units that our panels use."""

_TIMES = [(86400 * 365, "years"), (86400 * 7, "weeks"), (86400, "days"), (3600, "hours"), (60, "mins"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")]
_SUFFIX = {"reqps": "req/s", "cps": "c/s", "ops": "ops/s", "pps": "p/s"}


def _digits(value, decimals):
    if decimals is None:
        size = abs(value)
        decimals = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2
    return f"{value:.{decimals}f}"


def _scaled(value, base, names):
    step = 0
    while abs(value) >= base and step + 1 < len(names):
        value, step = value / base, step + 1
    return value, names[step]


def written(value, unit, decimals=None):
    """The text of a value; `none` is a plain number."""
    if value is None or value != value:
        return ""
    if unit == "percentunit":
        value *= 100
        return f"{_digits(value, decimals if decimals is not None else None)}%"
    if unit == "s":
        size = abs(value)
        for seconds, name in _TIMES:
            if size >= seconds:
                return f"{_digits(value / seconds, decimals)} {name}"
        return "0 s" if value == 0 else f"{_digits(value * 1e6, decimals)} µs"
    if unit in ("bytes", "Bps"):
        value, name = _scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"])
        return f"{_digits(value, decimals)} {name}{'/s' if unit == 'Bps' else ''}"
    if unit in _SUFFIX:
        value, name = _scaled(value, 1000, ["", "K", "M"])
        return f"{_digits(value, decimals)}{name} {_SUFFIX[unit]}"
    if unit == "locale":
        return f"{value:,.0f}"
    if unit == "short":
        value, name = _scaled(value, 1000, ["", " K", " Mil", " Bil"])
        return f"{_digits(value, decimals)}{name}"
    return _digits(value, decimals)
