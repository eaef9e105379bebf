"""The smallest BentoML service, for what its start alone takes: `bentoml serve bento_empty:Empty`."""

from __future__ import annotations

import bentoml


@bentoml.service(name="empty")
class Empty:
    """Nothing."""

    @bentoml.api
    def nothing(self) -> str:
        """Answer nothing."""
        return ""
