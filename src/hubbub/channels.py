"""What rules for channels are written with: `from hubbub.channels import Access, Lease`."""

from __future__ import annotations

from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Past, Position, Publication
from hubbub.node.access import Access, Lease
from hubbub.node.presence import Present

__all__ = ["Access", "Lease", "Namespace", "Past", "Position", "Present", "Publication"]
