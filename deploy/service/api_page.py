"""The OpenAPI description as one page that needs nothing from elsewhere; the description itself is /openapi.json."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lstfe.web_page import document, table

_STYLE = """
h2 code { font-size: .95em; } h3 { font-size: 1em; margin: 1.2em 0 .4em; }
pre { overflow-x: auto; background: var(--band); padding: .7em; font-size: .85em; }
.method { display: inline-block; min-width: 4.2em; color: var(--accent); font-weight: 600; }
a { color: var(--accent); }
"""


def api_page(description: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI description."""
    return document(f"{description['info']['title']}: the API", _parts(description), style=_STYLE)


def _parts(description: Mapping[str, Any]) -> Iterator[str]:
    info = description["info"]
    yield f"<h1>{html.escape(info['title'])}: the API</h1>"
    yield f"<p>{html.escape(info.get('description', ''))} The same for programs: "
    yield '<a href="/openapi.json">openapi.json</a>. To try it by hand: <a href="/">the page of videos</a>.</p>'
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield from _operation(path, method, operation)
    yield "<h2>Live streams: <code>WS /v1/streams</code></h2>" + _streams()
    yield "<h2>Objects</h2>"
    for name, schema in description.get("components", {}).get("schemas", {}).items():
        yield f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>'
        yield f"<p>{html.escape(schema.get('description', ''))}</p>"
        yield _properties(schema)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h2><span class="method">{method.upper()}</span> <code>{html.escape(path)}</code></h2>'
    yield f"<p>{html.escape(operation.get('description') or operation.get('summary', ''))}</p>"
    if parameters := operation.get("parameters"):
        rows = [
            (
                f"<code>{html.escape(item['name'])}</code>",
                html.escape(item["in"]),
                _type(item.get("schema", {})),
                html.escape(item.get("description", "")),
            )
            for item in parameters
        ]
        yield table(("parameter", "in", "type", "meaning"), rows, caption="Parameters", numbers=False)
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"<code>{html.escape(kind)}</code>" for kind in body["content"])
        yield f"<p>Body: {kinds}.</p>"
    answers = [
        (html.escape(status), html.escape(answer.get("description", "")), _content(answer))
        for status, answer in sorted(operation["responses"].items())
    ]
    yield table(("status", "meaning", "content"), answers, caption="Answers", numbers=False)


def _content(answer: Mapping[str, Any]) -> str:
    return ", ".join(
        _type(content.get("schema", {})) or html.escape(kind)
        for kind, content in answer.get("content", {}).items()
    )


def _properties(schema: Mapping[str, Any]) -> str:
    rows = [
        (f"<code>{html.escape(name)}</code>", _type(item), html.escape(item.get("description", "")))
        for name, item in schema.get("properties", {}).items()
    ]
    if not rows:
        return f"<pre>{html.escape(json.dumps(schema, indent=2))}</pre>"
    return table(("field", "type", "meaning"), rows, caption="Fields", numbers=False)


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{html.escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'numbers'}"
    return html.escape(str(schema.get("type", "")))


def _streams() -> str:
    rows = (
        ("in, binary", "a frame", "JPEG or PNG; all frames of one size"),
        ("in, text", '{"type": "end"}', "flush the last detections and close"),
        ("in, text", '{"type": "cut"}', "flush, and begin anew with the model now in service"),
        ("out", "ready", "model, lookahead, max_pending: at the start and after each cut"),
        ("out", "detections", "model, frame_index, detections: bbox [x, y, width, height], score, category"),
        ("out", "end", "num_frames, reason: after the last detections"),
        ("out", "draining", "seconds until the stream is flushed and closed: the service ends"),
        ("out", "error", "message; the connection is closed after it"),
    )
    cells = [(kind, f"<code>{html.escape(name)}</code>", text) for kind, name, text in rows]
    return table(("direction", "message", "meaning"), cells, caption="Messages", numbers=False)
