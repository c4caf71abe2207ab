"""Values of control headers: read strictly, each refused with its own reason (ValueError)."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

DAY = 86_400
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": DAY}
LONGEST_FLOW_PERIOD = 7 * DAY
WORD = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def duration(text: str) -> int:
    """Seconds of `1d10h30m`: whole numbers, each with its unit."""
    if not re.fullmatch(r"(\d+[smhd])+", text, re.ASCII):
        raise ValueError(f"{text!r} is no duration such as 90s or 1d10h30m")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def duration_or_seconds(text: str) -> int:
    """`context.call` sends numeric timeouts without a unit, and `waitForWebhook` too."""
    return int(text) if re.fullmatch(r"\d+", text, re.ASCII) else duration(text)


def whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def unix_seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,12}(\.\d+)?", text, re.ASCII):
        raise ValueError(f"{text!r} is no time in Unix seconds")
    return float(text)


def flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):  # Python sends True
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def only(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return read


def http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+\S*", text):
        raise ValueError(f"{text!r} is no absolute URL")
    return text


def word(text: str) -> str:
    if not WORD.fullmatch(text):
        raise ValueError(f"{text!r} has other characters than letters, digits, . _ -")
    return text


def labels(text: str) -> tuple[str, ...]:
    return tuple(word(part.strip()) for part in text.split(","))


def redact(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        if not re.fullmatch(r"body|headers?|headers?\[[^\[\]]+\]", part):
            raise ValueError(f"{part!r} is none of body, header, header[Name]")
    return parts


def some(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


FEATURES = ("LazyFetch", "InitialBody", "WF_DetectTrigger", "WF_TriggerOnConfig", "WF_NoDelete")


def features(text: str) -> frozenset[str]:
    found = [part.strip() for part in text.split(",")]
    for part in found:
        if part not in FEATURES:
            raise ValueError(f"{part!r} is no feature that an engine knows")
    return frozenset(found)


@dataclass(frozen=True)
class Flow:
    """Limits of a key; `period` in seconds."""

    parallelism: int | None = None
    rate: int | None = None
    period: int = 1


def flow(text: str) -> Flow:
    """`parallelism=5, rate=10, period=1m`: any of the three."""
    parts: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in ("parallelism", "rate", "period") or not equals or name in parts:
            raise ValueError(f"{part.strip()!r} is none of parallelism=<n>, rate=<n>, period=<duration>")
        parts[name] = duration_or_seconds(value) if name == "period" else whole(value)
        if parts[name] < 1:
            raise ValueError(f"{name} is below 1")
    if parts.get("period", 1) > LONGEST_FLOW_PERIOD:
        raise ValueError("period is longer than seven days")
    return Flow(**parts)


# Retries


def default_backoff(retry: int) -> float:
    """Seconds before the n-th retry, n = 1, 2, …"""
    return min(float(DAY), math.exp(2.5 * retry)) if retry < 10 else float(DAY)


FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    "pow": (2, math.pow),
    "exp": (1, math.exp),
    "sqrt": (1, math.sqrt),
    "abs": (1, abs),
    "floor": (1, math.floor),
    "ceil": (1, math.ceil),
    "round": (1, round),
    "min": (2, min),
    "max": (2, max),
}
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def retry_expression(text: str) -> str:
    retry_delay(text, 0)
    return text


def retry_delay(text: str, retried: int) -> float:
    """Seconds by an expression in milliseconds; `retried` is 0 before the first retry."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression") from error
    return min(max(_evaluate(tree.body, retried) / 1000, 0.0), float(DAY))


def _evaluate(node: ast.expr, retried: int) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name) and node.id == "retried":
        return float(retried)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_evaluate(node.left, retried), _evaluate(node.right, retried))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        count, function = FUNCTIONS[node.func.id]
        if len(node.args) == count and not node.keywords:
            return float(function(*(_evaluate(argument, retried) for argument in node.args)))
    raise ValueError(f"{ast.unparse(node)!r} has no place in the expression of a retry delay")


GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, **UNITS}
GO_PIECE = r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)"


def retry_after(text: str, now: float) -> float:
    """Seconds from `now` (Unix seconds): a number, an HTTP date or a Go duration."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(f"(?:{GO_PIECE})+", text):
        return sum(float(number) * GO_UNITS[unit] for number, unit in re.findall(GO_PIECE, text))
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r} is no number, date or duration") from error


# Schedules

CRON_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@dataclass(frozen=True)
class Cron:
    """Five fields, minute resolution, UTC or the zone of a `CRON_TZ=` prefix."""

    text: str
    zone: ZoneInfo
    fields: tuple[frozenset[int], ...]
    any_day: tuple[bool, bool]

    @classmethod
    def parse(cls, text: str) -> Cron:
        text = text.strip()
        zone, rest = "UTC", text
        if text.startswith("CRON_TZ="):
            zone, _, rest = text.removeprefix("CRON_TZ=").partition(" ")
        parts = rest.split()
        if len(parts) != 5:
            raise ValueError(f"{rest!r} has {len(parts)} fields, a schedule has five")
        fields = tuple(_cron_field(part, low, high) for part, (low, high) in zip(parts, CRON_FIELDS, strict=True))
        weekdays = frozenset(day % 7 for day in fields[4])
        try:
            return cls(text, ZoneInfo(zone), (*fields[:4], weekdays), (parts[2] == "*", parts[4] == "*"))
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"there is no time zone {zone!r}") from error

    def after(self, instant: float) -> float:
        """The first fire after `instant`, in Unix seconds."""
        moment = datetime.fromtimestamp(instant // 60 * 60, UTC)
        for _ in range(366 * 24 * 60):
            moment += timedelta(minutes=1)
            if self._fires(moment.astimezone(self.zone)):
                return moment.timestamp()
        raise ValueError(f"{self.text!r} does not fire within a year")

    def _fires(self, local: datetime) -> bool:
        minutes, hours, days, months, weekdays = self.fields
        if local.minute not in minutes or local.hour not in hours or local.month not in months:
            return False
        day, weekday = local.day in days, local.isoweekday() % 7 in weekdays
        return day and weekday if any(self.any_day) else day or weekday


def _cron_field(text: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if match is None:
            raise ValueError(f"{part!r} is no field of a schedule")
        _, first, last, step = match.groups()
        start = low if first is None else int(first)
        end = high if first is None or (step and last is None) else int(last or first)
        if not low <= start <= end <= high or step == "0":
            raise ValueError(f"{part!r} is out of range")
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)
