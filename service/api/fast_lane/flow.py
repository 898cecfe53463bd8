"""Flow control of a connection: uvicorn's, but reading stops while requests wait."""

from asyncio import Transport
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Resumes reading only if no request of the connection waits behind another one.

    uvicorn resumes reading after each answer, and when a request wants its body. While other
    requests wait, more bytes would then come in than are released.
    """

    def __init__(self, transport: Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read from the peer again, unless requests wait."""
        if not self._waiting:
            super().resume_reading()
