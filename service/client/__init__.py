"""The HTTP client of a service; imports nothing else of ours."""

from service.client.asynchronous.client import AsyncClient
from service.client.client import Client
from service.client.errors import Refused, ServiceError, Unreachable, Unusable

__all__ = ["AsyncClient", "Client", "Refused", "ServiceError", "Unreachable", "Unusable"]
