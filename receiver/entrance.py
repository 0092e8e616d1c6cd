"""Who may come in, as the settings say."""

from __future__ import annotations

from receiver.access import Access
from receiver.admission import Admission
from receiver.gallery.sessions import Sessions
from receiver.keyring import secret_keys
from receiver.limits import Limits
from receiver.settings import Settings
from storage.records import Clock


def entrance(settings: Settings, clock: Clock) -> Admission:
    """Make what every request passes first; raise SettingsError where that would be open to strangers."""
    access = Access(token.get_secret_value() for token in settings.api_tokens)
    access.refuse_exposure(settings.host, settings.public_url)
    limits = Limits(settings.limits, settings.trusted_proxies, clock)
    return Admission(access, limits, Sessions(access, secret_keys(settings), clock))
