"""The drafts of one `append` on their way to their cursors: the arithmetic that SQL stores share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubbub.core.inbox import FORGET_KEY, Draft, Stored

__all__ = ["Batch"]


class Batch:
    """Which drafts are fresh, and where they go once the heads of their users are known.

    Args:
        drafts: as given to `append`.
        known: the cursors of the keys that the users' inboxes have seen.
    """

    def __init__(self, drafts: Sequence[Draft], known: Mapping[tuple[str, str], int]) -> None:
        self.counts: dict[str, int] = {}
        """How many are fresh, by user."""
        self.fresh: list[tuple[Draft, int]] = []
        """The fresh ones, each with its place among those of its user, from 1."""
        self._drafts = drafts
        self._known = known
        self._repeats: dict[int, int] = {}
        """By index: a draft with the key of an earlier one, and the place of that."""
        counts, fresh = self.counts, self.fresh
        firsts: dict[tuple[str, str], int] = {}
        for index, draft in enumerate(drafts):
            if draft.key is not None:
                name = (draft.user_id, draft.key)
                if name in known or name in firsts:
                    self._repeats[index] = firsts.get(name, 0)
                    continue
                firsts[name] = counts.get(draft.user_id, 0) + 1
            place = counts[draft.user_id] = counts.get(draft.user_id, 0) + 1
            fresh.append((draft, place))

    def messages(
        self, heads: Mapping[str, int], inboxes: Mapping[str, int]
    ) -> list[tuple[int, int, str, bytes, int, int]]:
        """Rows for the messages: inbox, cursor, type, payload, times.

        Args:
            heads: each user's last cursor, with the fresh ones counted in.
            inboxes: the number of each user's inbox.
        """
        base = self._base(heads)
        return [
            (inboxes[to], base[to] + place, draft.type, draft.payload, draft.sent_at, draft.expires_at)
            for draft, place in self.fresh
            for to in (draft.user_id,)
        ]

    def keys(self, heads: Mapping[str, int]) -> list[tuple[str, str, int, int]]:
        """Rows for the keys: user, key, cursor, when it is forgotten."""
        base = self._base(heads)
        return [
            (draft.user_id, draft.key, base[draft.user_id] + place, draft.sent_at + FORGET_KEY)
            for draft, place in self.fresh
            if draft.key is not None
        ]

    def stored(self, heads: Mapping[str, int], dropped: Mapping[str, int]) -> list[Stored]:
        """What became of each draft.

        Args:
            heads: each user's last cursor, with the fresh ones counted in.
            dropped: how many messages the users' caps cost.
        """
        base = self._base(heads)
        if dropped:
            results = [self._dropping(draft.user_id, place, base, dropped) for draft, place in self.fresh]
        else:
            results = [Stored(base[draft.user_id] + place) for draft, place in self.fresh]
        for index, place in self._repeats.items():
            draft = self._drafts[index]
            cursor = base[draft.user_id] + place if place else self._known[draft.user_id, draft.key or ""]
            results.insert(index, Stored(cursor, fresh=False))
        return results

    def _base(self, heads: Mapping[str, int]) -> dict[str, int]:
        return {user_id: heads[user_id] - count for user_id, count in self.counts.items()}

    def _dropping(self, user_id: str, place: int, base: Mapping[str, int], dropped: Mapping[str, int]) -> Stored:
        """The last drafts cost one message each, the first what is left."""
        lost, count = dropped.get(user_id, 0), self.counts[user_id]
        share = max(lost - count + 1, 0) if place == 1 else int(place > count - lost)
        return Stored(base[user_id] + place, dropped=share)
