"""Facts about a backbone that its knobs decide, so that a configuration can be checked before anything is built."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneTraits:
    """Facts that other parts of a configuration are compared with.

    Attributes:
        recurrent: the size of its state does not depend on the number of positions read.
        scans: some of its layers read patches in the order of a scan.
        axes: numbers of position ids a token that it accepts; 0: neither position ids, masks nor packed rows.
    """

    recurrent: bool
    scans: bool
    axes: tuple[int, ...]
