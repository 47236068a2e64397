"""Applications with authentication around the app, or in it."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Header, HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from batchers.serving import create_app

from .models import lengths


class Guard:
    """ASGI middleware that wants a header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what has the header."""
        if scope["type"] == "http" and b"x-key" not in dict(scope["headers"]):
            await PlainTextResponse("no", 401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Around(Guard):
    """The same, around the app."""


def needs_key(x_key: str | None = Header(None)) -> None:
    """Be a dependency."""
    if x_key is None:
        raise HTTPException(401)


around = Around(create_app(lengths))
inside: Any = create_app(lengths)
inside.add_middleware(Guard)
depends = create_app(lengths, dependencies=[Depends(needs_key)])
