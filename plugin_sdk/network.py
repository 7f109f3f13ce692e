"""Contracts of network and IPAM drivers."""

from kernel.contracts.network import *
