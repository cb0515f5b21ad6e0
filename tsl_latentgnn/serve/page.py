"""The API as a plain page, which needs no script and nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
code, pre {{ background: #f3f3f3; padding: .1em .3em }}
pre {{ white-space: pre-wrap; padding: .6em }}
</style>
<h1>{title} {version}</h1>
<p>{description}</p>
<p>For programs: <a href="openapi.json">openapi.json</a>.</p>
{routes}
</html>
"""


def render(schema: dict[str, Any]) -> str:
    """Return an OpenAPI schema as HTML."""
    routes = []
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
            parts += [f"<p>{escape(part)}</p>" for part in route["description"].split("\n\n")]
            for parameter in route.get("parameters", []):
                text = escape(parameter.get("description", ""))
                parts.append(f"<p><code>?{escape(parameter['name'])}=</code> {text}</p>")
            for kind, content in route.get("requestBody", {}).get("content", {}).items():
                parts.append(f"<p>{kind}:</p><pre>{escape(content['schema']['description'])}</pre>")
            routes.append("\n".join(parts))
    info = {name: escape(schema["info"][name]) for name in ("title", "version", "description")}
    return _PAGE.format(routes="\n".join(routes), **info)
