"""When a connection is read: uvicorn's flow control, and no requests behind those that wait."""

from asyncio import Transport
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Reads on only while no request of the connection waits behind another.

    Every request that is answered, or that asks for its body, would let more bytes in than it
    releases.
    """

    def __init__(self, transport: Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._waiting:
            super().resume_reading()
