"""The page of a server, which contains everything that it needs."""

from dataclasses import dataclass

from ...visualization.pages import (
    page_resource,
    page_scripts,
    page_template,
    script_json,
    script_policy,
)
from ..limits import Limits


@dataclass(frozen=True)
class Page:
    """`html` is the page, and `policy` its Content-Security-Policy."""

    html: str
    policy: str


def render_page(*, name: str, limits: Limits, needs_token: bool, draw_threshold: float) -> Page:
    """
    Return the page.

    Args:
        name: of the model.
        limits: which the page checks before it sends anything.
        needs_token: whether the page asks for a token.
        draw_threshold: score threshold that is set at first.

    Raises:
        UserError: Jinja2 is not installed.
    """
    scripts = page_scripts(__name__, "serve.js")
    policy = script_policy(scripts, connect="'self'")
    style = page_resource("libra_d2.visualization", "report/report.css")
    html = page_template(__name__, "serve.html", "pages of servers").render(
        title="Object detection",
        name=name,
        style=f"{style}\n{page_resource(__name__, 'serve.css')}",
        scripts=scripts,
        policy=policy,
        needs_token=needs_token,
        settings=script_json(
            {
                "max_bytes": limits.max_bytes,
                "max_pixels": limits.max_pixels,
                "threshold": draw_threshold,
            }
        ),
    )
    return Page(html, policy)
