"""Limits and names that the middleware and the routes behind it share."""

from __future__ import annotations

SCORE_ROUTE = "/arc/score"
"""Where answers are scored (``serve.server.routes.score_route``)."""
MAX_SEQUENCES = 16_384
"""Answers that one request may ask for, or have scored; vLLM only limits each factor, to 16 million together."""
