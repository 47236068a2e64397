"""One HTML page for a load measurement: self-contained, without scripts."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from benchmarks.load.run import LoadResult
from benchmarks.results import Result

TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="source" content="{{ source }}">
<title>{{ cell.path }}: load report</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .2rem .8rem; border-bottom: 1px solid #ccc; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
</style>
<h1>{{ cell.path }}</h1>
<p>{{ cell.most_users }} users on the ramp of {{ cell.ramp }}'s report (time scale {{ cell.time_scale }}),
{{ cell.model_call }} model{% if cell.path != "/predict" %}, backend {{ cell.backend }}{% endif %}.
A {{ scale }} measurement.</p>
<img alt="Requests, failures, latencies and users over time" src="data:image/png;base64,{{ picture }}">
<h2>With all users there ({{ top.seconds }} s)</h2>
<table>
{% for name, value in rows %}<tr><th>{{ name }}</th><td class="n">{{ value }}</td></tr>
{% endfor %}</table>
<h2>Failures</h2>
{% if top.failures %}<table>
{% for kind, count in top.failures | dictsort %}<tr><th>{{ kind }}</th><td class="n">{{ count }}</td></tr>
{% endfor %}</table>{% else %}<p>None.</p>{% endif %}
<h2>Where</h2>
<table>
{% for name, value in where %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table>
</html>
"""


def write(result: Result[LoadResult], picture: Path, file: Path, source: str) -> None:
    """Write the page of a measurement, with its picture inside and the fingerprint of its result."""
    measured, where = result.measured, result.environment
    top = measured.top
    rows = [
        ("requests per second", f"{top.requests_per_second:.1f}"),
        ("failures per second", f"{top.failures_per_second:.2f}"),
        ("mean", f"{1000 * top.mean:.1f} ms"),
        ("median", f"{1000 * top.p50:.1f} ms"),
        ("95th percentile", f"{1000 * top.p95:.1f} ms"),
        ("99th percentile", f"{1000 * top.p99:.1f} ms"),
        ("items in a batch, mean, whole run", f"{measured.batch_size_mean:.1f}"),
        ("processor time of the server, whole run", f"{measured.cpu_seconds:.1f} s"),
        ("memory of the server at the end", f"{measured.resident_bytes / 1e6:.0f} MB"),
    ]
    machine = [
        ("processor", f"{where.cpu}, {where.cores} cores"),
        ("system", f"Linux {where.kernel}, Python {where.python}"),
        ("commit", where.commit),
        ("packages", ", ".join(f"{name} {version}" for name, version in where.versions.items())),
    ]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)
    file.write_text(
        template.render(
            source=source,
            cell=measured.cell,
            scale=result.scale,
            top=top,
            rows=rows,
            where=machine,
            picture=base64.b64encode(picture.read_bytes()).decode(),
        )
    )
