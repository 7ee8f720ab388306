"""
Login: a form that takes a token, and the cookie that stands for it from then on.

One page of plain HTML without a script. The token comes in a form field, so it is in no
address, no history and no log.
"""

import html
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from elytron.errors import ElytronError
from elytron.faces.dashboard import pages
from elytron.faces.dashboard.frame import CSS
from elytron.faces.dashboard.sessions import Sessions

COOKIE = "elytron_session"
_FORM_MAX = 8192  # bytes
_FIELDS_MAX = 10
_TARGET_MAX = 8192  # characters of the page to come back to: an agent's name may have 1,000
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Log in · Elytron</title>
<link rel="icon" href="data:,">
<style>{css}</style>
</head>
<body class="login">
<main>
<form method="post" action="/login" class="card">
<p class="brand"><span class="mark" aria-hidden="true"></span>Elytron</p>
<h1>Log in</h1>
{complaint}
<label for="token">Token</label>
<input id="token" name="token" type="password" required autofocus autocomplete="current-password"
 spellcheck="false"{described}>
<p class="soft" id="hint">As made with <code>elytron token add</code> on the server. It is exchanged
 for a session and is not kept in this browser.</p>
<input type="hidden" name="next" value="{target}">
<button type="submit" class="button strong">Log in</button>
</form>
</main>
</body>
</html>
"""


class Login:
    """Answers `/login` and `/logout`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/logout":
            response = self._log_out(request)
        elif self._sessions.tokens is None:
            response = RedirectResponse("/", 303)
        elif request.method == "POST":
            response = await self._log_in(request)
        elif request.method in ("GET", "HEAD"):
            response = _form(_target(request.query_params.get("next", "")))
        else:
            response = Response(status_code=405)
        response.headers["Cache-Control"] = "no-store"
        await response(scope, receive, send)

    def _log_out(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        self._sessions.end(request.cookies.get(COOKIE))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def _log_in(self, request: Request) -> Response:
        form = await _read_form(request)
        if form is None:
            return _form("/", "That is longer than any token.", 413)
        target = _target(form.get("next", ""))
        address = request.client.host if request.client else ""
        wait_s = self._sessions.wait_s(address)
        if wait_s > 0:
            text = f"Too many wrong tokens. Try again in {wait_s:.0f} s."
            response = _form(target, text, 429)
            response.headers["Retry-After"] = str(round(wait_s) or 1)
            return response
        try:
            session = self._sessions.begin(form.get("token", "").strip())
        except ElytronError:  # its text names the file, which is nothing for a stranger
            return _form(target, "The server cannot read its tokens; see its log.", 503)
        if session is None:
            self._sessions.note_failure(address)
            return _form(target, "No such token.", 401)
        response = RedirectResponse(target, 303)
        # Behind a proxy that speaks HTTPS, only the browser's word tells of it.
        origin = request.headers.get("origin", "")
        secure = request.url.scheme == "https" or origin.startswith("https://")
        response.set_cookie(COOKIE, session, httponly=True, samesite="strict", secure=secure)
        return response


def login_path(scope: Scope) -> str:
    """Where to log in, and then come back to the page that was asked for."""
    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    if target == "/" or _target(target) != target:
        return "/login"
    return "/login?" + urlencode({"next": target})


def _target(asked: str) -> str:
    """Where to go once logged in: one of our pages, never somebody else's."""
    path, _, query = asked.partition("?")
    known = path in pages.PATHS and len(asked) <= _TARGET_MAX and asked.isprintable()
    if not known or not asked.isascii() or (query and not query.startswith("name=")):
        return "/"
    return asked


async def _read_form(request: Request) -> dict[str, str] | None:
    """The fields of a form; None where it is longer than ours, or has more of them."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_MAX:
            return None
    text = body.decode("utf-8", "replace")
    try:
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:  # there are more
        return None
    return {name: values[0] for name, values in fields.items()}


def _form(target: str, complaint: str = "", status: int = 200) -> Response:
    told = f'<p class="complaint" id="complaint" role="alert">{html.escape(complaint)}</p>'
    text = _PAGE.format(
        css=CSS,
        complaint=told if complaint else "",
        described=' aria-describedby="complaint hint" aria-invalid="true"'
        if complaint
        else ' aria-describedby="hint"',
        target=html.escape(target, quote=True),
    )
    return HTMLResponse(text, status, headers={"Content-Security-Policy": _POLICY})
