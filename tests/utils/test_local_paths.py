import pytest

from libra_d2.errors import UserError
from libra_d2.utils.local_paths import is_url, local_path

URLS = ("http://h/a", "HTTPS://h/a", " http://h/a", "ftp://h/a", "file:///a", "s3://b/a", "a+b://c")
PATHS = ("a", "/a/b", "../a", "C:/a", "C://a", r"C:\a", "a b", "http:", "a://b"[:2], "é", "a/b://c")


def test_only_paths_of_this_machine_pass():
    for url in URLS:
        assert is_url(url)
        with pytest.raises(UserError, match="the image must be a path on this machine, got the"):
            local_path(url, "the image")
    for path in PATHS:
        assert not is_url(path) and local_path(path, "the image") == path
    with pytest.raises(UserError, match="must be a path without NUL characters"):
        local_path("a\0b", "the image")
