"""The client of a service.

Written by `make docs` from the module of the same name one folder up.
"""

from service.client.asynchronous.administration import Administration
from service.client.asynchronous.detectors import Detectors
from service.client.asynchronous.incidents import Incidents
from service.client.asynchronous.review import Review
from service.client.asynchronous.vectors import Vectors
from service.client.asynchronous.versions import Versions


class AsyncClient(Vectors, Detectors, Versions, Incidents, Review, Administration):
    """The client of one service. It has a method for every route.

    >>> from service.client import AsyncClient
    >>> async with AsyncClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     await client.score("pump-7", vectors)["is_anomaly"]
    """
