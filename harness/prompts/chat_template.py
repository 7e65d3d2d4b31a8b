"""What a chat template is rendered with beside the messages: the user's variables, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime, time

from pydantic import JsonValue

_DATE_STRING = "%d %b %Y"
"""How Llama's templates write the date; they take ``date_string`` instead where it is given."""


@dataclass(frozen=True)
class TemplateSettings:
    """Variables of a chat template, the same for training and asking.

    Args:
        kwargs: as ``chat_template_kwargs`` of a request.
        date: the day that a template is to take for today, such as ``2026-11-29``; None leaves it the machine's clock.
    """

    kwargs: Mapping[str, JsonValue] = field(default_factory=dict)
    date: str | None = None

    def arguments(self) -> dict[str, object]:
        """What is handed to the template here."""
        return {**self._clock(), **self.request_kwargs()}

    def request_kwargs(self) -> dict[str, JsonValue]:
        """What can be sent to a server as ``chat_template_kwargs``, so that its template writes the same.

        A template that calls ``strftime_now`` whatever it is given cannot be reached this way.
        """
        fixed: dict[str, JsonValue] = {} if self.date is None else {"date_string": moment(self.date, _DATE_STRING)}
        return {**fixed, **self.kwargs}

    def _clock(self) -> dict[str, Callable[[str], str]]:
        day = self.date
        return {} if day is None else {"strftime_now": lambda form: moment(day, form)}


AS_IT_IS = TemplateSettings()
"""No variables, and today's date."""


def moment(day: str, form: str) -> str:
    """Midnight of a day, formatted."""
    return datetime.combine(Date.fromisoformat(day), time()).strftime(form)
