"""Contracts of containers: configuration, record, draft, preparation, service."""

from kernel.contracts.container_config import *
from kernel.contracts.containers import *
