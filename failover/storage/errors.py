"""What a read through `GeoFailover` raises beyond the SDK's own errors."""

from __future__ import annotations

from azure.core.exceptions import AzureError


class BothEndpointsDown(AzureError):  # noqa: N818 (the contract's name)
    """Neither endpoint answered the read. `primary` and `secondary` say why, in a few words each.

    No `HttpResponseError`: the SDK replaces those by its own.
    """

    def __init__(self, primary: str, secondary: str) -> None:
        super().__init__(f"Neither endpoint answered. Primary: {primary}. Secondary: {secondary}.")
        self.primary = primary
        self.secondary = secondary


class NotReplicated(AzureError):  # noqa: N818 (the contract's name)
    """The secondary does not hold what was asked for, and the primary, which may, cannot be asked.

    Deliberately no `ResourceNotFoundError`: "I do not know" must not read as "no". `primary` says why it cannot be
    asked, `secondary` what the secondary answered.
    """

    def __init__(self, primary: str, secondary: str) -> None:
        super().__init__(
            f"The secondary does not hold it ({secondary}), and the primary, which may, cannot be asked: {primary}."
        )
        self.primary = primary
        self.secondary = secondary
