"""The client of a service."""

from service.client.administration import Administration
from service.client.detectors import Detectors
from service.client.incidents import Incidents
from service.client.review import Review
from service.client.vectors import Vectors
from service.client.versions import Versions


class Client(Vectors, Detectors, Versions, Incidents, Review, Administration):
    """The client of one service. It has a method for every route.

    >>> from service.client import Client
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.score("pump-7", vectors)["is_anomaly"]
    """
