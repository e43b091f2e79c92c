"""Secure aggregation: the server learns the sum of the sites' vectors, and nothing of one.

The protocol of Bonawitz et al. 2017 (https://eprint.iacr.org/2017/281, Figure 4, with the
consistency check against an active server), optionally over the sparse graph of Bell et al. 2020
(https://eprint.iacr.org/2020/704). Every function is pure but for fresh randomness; client and
server carry the messages.
"""

from fedcore.privacy.secagg.client import (
    advertise_keys,
    check_consistency,
    check_inbox,
    check_roster,
    check_signatures,
    masked_input,
    share_keys,
    unmask,
)
from fedcore.privacy.secagg.graph import Graph, complete, default_threshold, neighbours, sparse
from fedcore.privacy.secagg.holdings import (
    check_survivors,
    open_holdings,
    seal_holdings,
    shared_by_enough,
)
from fedcore.privacy.secagg.messages import (
    Holdings,
    Revealed,
    Roster,
    Shares,
    Signatures,
    SiteKeys,
    Surviving,
)
from fedcore.privacy.secagg.secrets import Secrets, context_of
from fedcore.privacy.secagg.server import check_keys, check_signature, shortage, unmask_sum
from fedcore.privacy.secagg.terms import Terms, agree

__all__ = [
    "Graph", "Holdings", "Revealed", "Roster", "Secrets", "Shares", "Signatures", "SiteKeys",
    "Surviving", "Terms", "advertise_keys", "agree", "check_consistency", "check_inbox",
    "check_keys", "check_roster", "check_signature", "check_signatures", "check_survivors",
    "complete", "context_of", "default_threshold", "masked_input", "neighbours", "open_holdings",
    "seal_holdings", "share_keys", "shared_by_enough", "shortage", "sparse", "unmask", "unmask_sum",
]  # fmt: skip
