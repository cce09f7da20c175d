"""The routes of the page: a set of files that the browser takes as they are, without a build and without network.

Temml (temml.min.js, version 0.13.5 of https://temml.org, MIT) turns LaTeX into MathML. Browsers draw this themselves:
it needs no fonts and no style sheet of its own. It reads more of LaTeX than latex2mathml, a package for Python that
takes no `aligned`; and its work is done by the browser, not by the server that writes answers.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
# The system's own table of types may be wrong, and a script of another type does not run
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", "": "text/plain"}
HEADERS = {
    # Only files of this server, and no text can become a tag or a script: the browser refuses innerHTML
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a newer version of the program has newer files
}


def page_routes() -> list[Route]:
    """Return a route for each file, and `/` for the page. The files are read once: none else can be asked for."""
    files = {f"/page/{path.name}": path for path in sorted(FOLDER.iterdir())}
    page = files.pop("/page/index.html")
    return [_route("/", page), *(_route(name, path) for name, path in files.items())]


def _route(name: str, path: Path) -> Route:
    content = path.read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, headers=HEADERS, media_type=TYPES[path.suffix])

    return Route(name, send)
