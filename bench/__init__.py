"""Measures what Hubbub costs, next to its peers and to the kernel's own floor."""
