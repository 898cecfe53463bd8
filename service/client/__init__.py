"""The HTTP client of a service; imports nothing else of ours."""

from service.client.client import AsyncClient, Client
from service.client.errors import Refused, ServiceError, Unreachable, Unusable

__all__ = ["AsyncClient", "Client", "Refused", "ServiceError", "Unreachable", "Unusable"]
