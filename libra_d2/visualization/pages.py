"""Build self-contained HTML pages from templates. Their pictures are a part of the file."""

import base64
import hashlib
import io
import json
from importlib import resources
from typing import Any, List

from PIL import Image

from ..utils.extras import import_extra
from ..utils.files import replacing

_SHARED = "libra_d2.visualization"  # the package with the templates and scripts of all pages


def page_template(package: str, name: str, purpose: str) -> Any:
    """
    Return a Jinja2 template from the folder `templates` of a package. It escapes all values, and
    can extend `base.html`, the frame of all pages, and import `tables.html`.

    Args:
        purpose: what Jinja2 is needed for, which the message says if it is not installed.

    Raises:
        UserError: Jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "report", purpose)
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(p) for p in (package, _SHARED)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def page_resource(package: str, name: str) -> str:
    """Return the text of a file in a package, such as a style sheet."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def page_scripts(package: str, *names: str) -> List[str]:
    """Return pages.js, which other scripts of a page need, and the scripts of a package."""
    return [page_resource(_SHARED, "pages.js"), *(page_resource(package, n) for n in names)]


def script_json(value: Any) -> str:
    """Encode as JSON that cannot close the script element around it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def script_policy(scripts: List[str], connect: str = "'none'") -> str:
    """
    Return a Content-Security-Policy that allows only these scripts, and connections only to
    `connect`.
    """
    digests = [hashlib.sha256(s.encode("utf-8")).digest() for s in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def save_page(page: str, path: str) -> None:
    """
    Write a page to a file. Characters that UTF-8 cannot encode, which undecodable file names have,
    become question marks.
    """
    with replacing(path) as partial, open(partial, "wb") as f:
        f.write(page.encode("utf-8", "replace"))


def data_uri(picture: Image.Image, quality: int) -> str:
    """Encode a picture as a JPEG, with a quality from 1 to 95, and return it as a data URI."""
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
