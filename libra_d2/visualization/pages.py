"""Build self-contained HTML pages from templates. Their pictures are a part of the file."""

import base64
import io
from importlib import resources
from typing import Any

from PIL import Image

from ..utils.extras import import_extra
from ..utils.files import replacing


def page_template(package: str, name: str, purpose: str) -> Any:
    """
    Return a Jinja2 template from the folder `templates` of a package. It escapes all values.

    Args:
        purpose: what Jinja2 is needed for, which the message says if it is not installed.

    Raises:
        UserError: Jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "report", purpose)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def page_resource(package: str, name: str) -> str:
    """Return the text of a file in a package, such as a style sheet."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


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
