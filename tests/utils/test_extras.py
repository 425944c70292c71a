"""What is said about optional packages that are not installed."""

import sys

import pytest

from libra_d2.errors import UserError
from libra_d2.utils.extras import import_extra


@pytest.mark.parametrize("module", ["plotly", "plotly.offline"])
def test_the_package_is_named_that_has_to_be_installed(monkeypatch, module):
    monkeypatch.delitem(sys.modules, "plotly.offline", raising=False)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(UserError) as error:
        import_extra(module, "report", "HTML reports")
    assert str(error.value) == "HTML reports need plotly: pip install libra_d2[report]"


def test_a_module_that_a_package_lacks_is_not_the_users_mistake():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_extra("json.no_such_module", "report", "HTML reports")
