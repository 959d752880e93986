"""Ready-made lists of components for well-known systems; any other layout is a tuple of components."""

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
