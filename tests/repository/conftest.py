"""These tests are about the repository alone."""

from plain_store import folder as folder
from plain_store import store as store
