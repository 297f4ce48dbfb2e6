"""Error of a configuration."""


class ConfigError(ValueError):
    """An invalid configuration.

    Attributes:
        faults: every reason, as `path: fault; way out`.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(faults[0] if len(faults) == 1 else f"the configuration does not fit:\n{lines}")
