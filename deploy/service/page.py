"""The page at /: drop a video, watch boxes appear over it. One file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

from lstfe.web_page import STYLE, document

_SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
_STYLE = """
a { color: var(--accent); }
button, input { font: inherit; }
button { min-height: 2.6em; padding: .3em 1em; border: 1px solid var(--line); border-radius: .4em;
  background: var(--band); color: var(--text); cursor: pointer; }
button:disabled { opacity: .5; cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.drop { display: block; padding: 2.2em 1em; text-align: center; border: 2px dashed var(--faint); border-radius: .6em;
  background: var(--band); cursor: pointer; }
.drop.over { border-color: var(--accent); border-style: solid; }
.drop input { display: block; margin: 1em auto 0; max-width: 100%; }
.row { display: flex; flex-wrap: wrap; gap: .8em 1.2em; align-items: center; margin: 1em 0; }
.row label { display: flex; gap: .6em; align-items: center; flex-wrap: wrap; }
progress { width: 100%; height: 1em; accent-color: var(--accent); }
.stage { position: relative; background: #000; }
.stage video { width: 100%; }
.stage canvas { position: absolute; left: 0; top: 0; width: 100%; pointer-events: none; }
.bad { color: var(--bad); }
[hidden] { display: none !important; }
"""
_BODY = """
<h1>Small objects in video</h1>
<p id="model" class="faint" role="status">Asking for the model&hellip;</p>
<form id="form">
<label class="drop" id="drop">Drop a video here, or choose a file.
<input id="file" type="file" accept="video/*,.mkv,.avi,.ts"></label>
<div class="row" id="token-row" hidden><label for="token">Token <input id="token" type="password" autocomplete="off">
</label></div>
</form>
<section id="work" hidden aria-label="Detections">
<progress id="progress" max="1" value="0" aria-label="Progress"></progress>
<p id="status" role="status" aria-live="polite"></p>
<figure><div class="stage" id="stage"><video id="video" controls muted playsinline aria-label="The video"></video>
<canvas id="boxes" aria-hidden="true"></canvas></div>
<figcaption id="frame" class="faint"></figcaption></figure>
<div class="row"><label for="threshold">Least score <input id="threshold" type="range" min="0" max="1" step="0.01"
 value="0.5"><output id="threshold-value" for="threshold">0.50</output></label>
<button type="button" id="cancel">Cancel</button><button type="button" id="save" disabled>Save detections.json</button>
</div>
<p id="found"></p>
</section>
<noscript><p class="bad">This page needs JavaScript; <a href="/docs">the API</a> does not.</p></noscript>
<p class="faint"><a href="/docs">The API</a></p>
"""


@functools.cache
def watch_page() -> str:
    """Return the page."""
    return document("Small objects in video", [_BODY, f"<script>{_SCRIPT}</script>"], style=_STYLE)


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE_POLICY = (
    f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(STYLE + _STYLE)}; connect-src 'self'; "
    "media-src blob:; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
"""Only the page's own script and style run, and it talks to nobody but its service."""
