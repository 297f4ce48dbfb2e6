"""Requirements that packages declare in their metadata, compared with what is installed."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import NamedTuple

from packaging.requirements import Requirement

EXTRA = re.compile(r"\bextra == ['\"]([\w.-]+)['\"]")


class Unmet(NamedTuple):
    """A requirement that is not met: in words, the extra that asks for it, the version that is installed.

    Attributes:
        package: name of the package.
        wanted: name and range, as pip takes them.
        extra: the extra of the package that asks, empty for a requirement without which it does not run.
        installed: the version outside the range, None where the package is missing.
    """

    package: str
    wanted: str
    extra: str
    installed: str | None


def unmet_requirements(package: str) -> Iterator[Unmet]:
    """Yield what an installed package asks for on this platform and does not find.

    Raises:
        PackageNotFoundError: the package itself has no metadata, as one that is run from a checkout.
    """
    for needed in map(Requirement, requires(package) or ()):
        asked = EXTRA.search(str(needed.marker))
        extra = asked[1] if asked else ""
        if needed.name == package or (needed.marker and not needed.marker.evaluate({"extra": extra})):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            # A module on the path without metadata: no version to compare.
            if find_spec(needed.name.replace("-", "_")) is not None:
                continue
            found = None
        if found is None or not needed.specifier.contains(found, prereleases=True):
            yield Unmet(needed.name, f"{needed.name}{needed.specifier}", extra, found)
