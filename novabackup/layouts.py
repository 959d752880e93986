"""Ready-made lists of what well-known systems consist of, indexes or all of it; any other is a tuple of components."""

from novabackup.store.layouts import (
    LEFT_OUT,
    NOVA,
    NOVA_INSTALLATION,
    NOVA_MULTI_DOMAIN,
    NOVA_PARTS,
    NOVA_VEHICLE,
    Frequency,
    Part,
    Priority,
    nova_installation,
)

__all__ = [
    "LEFT_OUT",
    "NOVA",
    "NOVA_INSTALLATION",
    "NOVA_MULTI_DOMAIN",
    "NOVA_PARTS",
    "NOVA_VEHICLE",
    "Frequency",
    "Part",
    "Priority",
    "nova_installation",
]
