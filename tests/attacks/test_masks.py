"""Attacks on secure aggregation: by who reads the traffic, and by a server that does not follow it.

Each attack is one that works on an update without masks, or on a protocol that checks less.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cohort import Cohort, names
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedcore.errors import OrderRefused, UpdateRejected
from fedcore.privacy import fixed_point, secagg
from fedcore.privacy.secagg import SiteKeys, context_of, masks
from fedcore.privacy.secagg.secrets import public

FAR_FROM_CHANCE = 1e-6
"""A p-value below this is no accident; with the seeds fixed here it is never met by chance."""


def masked(cohort: Cohort, site: str, vector: np.ndarray) -> np.ndarray:
    return secagg.masked_input(
        vector.copy(), site, cohort.secrets[site], cohort.sites, cohort.terms
    )


class TestWhoReadsOneMaskedUpdate:
    cohort = Cohort(names(5), 4)
    update = np.random.default_rng(3).normal(0, 0.01, 200_000).clip(-1, 1)
    words = fixed_point.encode(update, fixed_point.grid(20, 1.0, 5), bytes(32))

    @staticmethod
    def uniform(words: np.ndarray) -> float:
        """The p-value of uniform bytes, the least one over the places of a byte in its word."""
        columns = words.view(np.uint8).reshape(words.size, -1).T
        return min(stats.chisquare(np.bincount(c, minlength=256)).pvalue for c in columns)

    @staticmethod
    def correlation(words: np.ndarray, other: np.ndarray) -> float:
        return abs(np.corrcoef(words.view(np.int32).astype(float), other)[0, 1])

    def test_its_bytes_are_uniform_and_those_without_masks_are_not(self):
        assert self.uniform(masked(self.cohort, "site-002", self.words)) > FAR_FROM_CHANCE
        assert self.uniform(self.words) < FAR_FROM_CHANCE

    def test_it_says_no_more_of_the_update_than_chance_does(self):
        by_chance = 6 / np.sqrt(self.words.size)  # six standard errors
        assert (
            self.correlation(masked(self.cohort, "site-002", self.words), self.update) < by_chance
        )
        assert self.correlation(self.words, self.update) > 0.99

    def test_the_difference_of_two_sites_or_of_two_rounds_says_no_more(self):
        later = Cohort(names(5), 4, context=context_of("run-1", "plan", 1, 0))
        one = masked(self.cohort, "site-002", self.words)
        for other in (
            masked(self.cohort, "site-003", self.words),
            masked(later, "site-002", self.words),
        ):
            assert self.uniform(one - other) > FAR_FROM_CHANCE

    def test_all_pair_masks_known_the_self_mask_still_hides_it(self):
        """Why there are two: a late update, whose pair masks the server had rebuilt already."""
        site, terms = "site-002", self.cohort.terms
        one = masked(self.cohort, site, self.words)
        pairs = [
            masks.pair_mask(self.cohort.secrets[site].mask, site, peer, terms)
            for peer in terms.graph.of(site)
        ]
        masks.add(one, [masks.opposite(pair) for pair in pairs])
        assert self.uniform(one) > FAR_FROM_CHANCE
        own = masks.self_mask(self.cohort.secrets[site].self_secret, site, terms)
        masks.add(one, [masks.opposite(own)])
        assert (one == self.words).all()

    def test_two_updates_under_the_same_secrets_would_give_their_difference(self):
        """Why a site masks one vector per attempt: this is what its ledger prevents."""
        once = masked(self.cohort, "site-002", self.words)
        twice = masked(self.cohort, "site-002", self.words + np.uint32(7))
        assert (twice - once == 7).all()


class TestAServerThatChangesTheRoster:
    cohort = Cohort(names(5), 4)

    def refused(self, roster: list[SiteKeys], words: str) -> None:
        with pytest.raises(OrderRefused, match=words):
            self.cohort.check_roster("site-000", roster)

    def received(self, site: str, keys: SiteKeys) -> None:
        """What the server does with keys that came as those of ``site``."""
        secagg.check_keys(keys, site, self.cohort.accepted[site], self.cohort.context)

    def test_an_honest_roster_in_any_order_is_accepted(self):
        assert self.cohort.check_roster("site-000", self.cohort.roster[::-1]) == self.cohort.terms

    @pytest.mark.parametrize("field", ["channel_key", "mask_key", "self_commitment"])
    def test_it_puts_its_own_key_in_place_of_a_site_s(self, field):
        own = public(X25519PrivateKey.generate())
        altered = [
            replace(keys, **{field: own}) if keys.site == "site-001" else keys
            for keys in self.cohort.roster
        ]
        self.refused(altered, "keys of site-001 are not signed")

    def test_it_signs_them_with_an_identity_of_its_own(self):
        forged = secagg.advertise_keys(
            "site-001", self.cohort.secrets["site-001"], Ed25519PrivateKey.generate(),
            self.cohort.context,
        )  # fmt: skip
        self.refused([self.cohort.roster[0], forged, *self.cohort.roster[2:]], "site-001 are not")
        with pytest.raises(UpdateRejected, match="not signed"):
            self.received("site-001", forged)

    def test_it_adds_sites_that_nobody_knows(self):
        strangers = Cohort(["sybil-1", "sybil-2"], 2)
        self.refused(self.cohort.roster + strangers.roster, "sybil-1 are not signed")

    def test_a_revoked_identity_counts_no_more(self):
        revoked = replace(self.cohort)
        revoked.accepted["site-003"] = []
        with pytest.raises(OrderRefused, match="keys of site-003"):
            revoked.check_roster("site-000")

    def test_a_rotated_identity_counts_beside_the_old_one(self):
        new = Ed25519PrivateKey.generate()
        both = [*self.cohort.accepted["site-001"], new.public_key()]
        keys = secagg.advertise_keys(
            "site-001", self.cohort.secrets["site-001"], new, self.cohort.context
        )
        secagg.check_keys(keys, "site-001", both, self.cohort.context)

    def test_keys_of_another_round(self):
        earlier = Cohort(names(5), 4, context=context_of("run-1", "plan", 0, 1))
        self.refused([*self.cohort.roster[:4], earlier.roster[4]], "keys of site-004")

    def test_keys_of_one_site_under_the_name_of_another(self):
        with pytest.raises(UpdateRejected, match="sent keys of site-002"):
            self.received("site-001", self.cohort.roster[2])
        renamed = replace(self.cohort.roster[2], site="site-001")
        self.refused([self.cohort.roster[0], renamed, *self.cohort.roster[2:]], "site-001 are not")

    def test_it_leaves_the_site_itself_out_or_names_one_twice(self):
        self.refused(self.cohort.roster[1:], "does not hold the keys that site-000")
        self.refused(
            [*self.cohort.roster, self.cohort.roster[3]], "site-003 is in the roster twice"
        )

    def test_it_shows_other_keys_of_the_site_itself(self):
        """Signed by the site for the same context, but not those of the seed that it has now."""
        seed = secagg.Secrets.from_seed(b"another seed of this site", self.cohort.context)
        identity, context = self.cohort.identities["site-000"], self.cohort.context
        earlier = secagg.advertise_keys("site-000", seed, identity, context)
        altered = replace(self.cohort.roster[0], self_commitment=bytes(32))
        for keys in (earlier, secagg.signing.sign_keys(altered, identity, context)):
            self.refused([keys, *self.cohort.roster[1:]], "does not hold the keys that site-000")

    def test_sites_that_share_an_identity_cannot_speak_for_each_other(self):
        renamed = replace(self.cohort.roster[2], site="site-001")
        with pytest.raises(UpdateRejected, match="not signed"):
            secagg.check_keys(
                renamed, "site-001", self.cohort.accepted["site-002"], self.cohort.context
            )

    def test_other_keys_of_the_same_sites_are_other_terms(self):
        """A site on the server's side signs two key pairs, and each half of the sites sees one."""
        seed = secagg.Secrets.from_seed(b"a second seed of site-004", self.cohort.context)
        identity = self.cohort.identities["site-004"]
        again = secagg.advertise_keys("site-004", seed, identity, self.cohort.context)
        shown = self.cohort.check_roster("site-000", [*self.cohort.roster[:4], again])
        assert shown.graph == self.cohort.terms.graph
        assert shown.digest != self.cohort.terms.digest

    def test_too_few_sites_or_a_threshold_of_half(self):
        self.refused(self.cohort.roster[:3], "3 sites, fewer than the 4")
        lax = replace(self.cohort)
        lax.threshold = 2
        with pytest.raises(OrderRefused, match="more than half"):
            lax.check_roster("site-000")

    def test_a_key_that_gives_no_secret_is_named(self):
        """Points of small order: whoever sends one would know the shared secret, all zeros."""
        bad = Cohort(names(3), 2)
        evil = secagg.signing.sign_keys(
            replace(bad.roster[1], mask_key=bytes(32), channel_key=bytes(32)),
            bad.identities["site-001"], bad.context,
        )  # fmt: skip
        terms = bad.check_roster("site-000", [bad.roster[0], evil, bad.roster[2]])
        with pytest.raises(OrderRefused, match="channel key of site-001 cannot be used"):
            secagg.share_keys("site-000", bad.secrets["site-000"], terms)
        with pytest.raises(OrderRefused, match="mask key of site-001 cannot be used"):
            secagg.masked_input(
                np.zeros(3, np.uint32), "site-000", bad.secrets["site-000"], bad.sites, terms
            )

    def test_sites_that_were_shown_different_rosters_do_not_understand_each_other(self):
        """Each roster alone is honestly signed and large enough."""
        whole = self.cohort.terms
        part = self.cohort.check_roster("site-000", self.cohort.roster[:4])
        sealed = secagg.share_keys("site-000", self.cohort.secrets["site-000"], part)
        own = secagg.share_keys("site-001", self.cohort.secrets["site-001"], whole)
        inbox = {"site-000": sealed["site-001"], "site-001": own["site-001"]}
        with pytest.raises(OrderRefused, match="shares of site-000 cannot be opened"):
            secagg.check_inbox("site-001", self.cohort.secrets["site-001"], inbox, whole)
        survivors = names(4)
        signature = secagg.check_consistency(self.cohort.identities["site-000"], survivors, part)
        with pytest.raises(UpdateRejected, match="site-000 did not sign"):
            secagg.check_signature(
                signature, "site-000", survivors, self.cohort.accepted["site-000"], whole
            )


class TestAServerThatChangesShares:
    cohort = Cohort(names(4), 3)
    inboxes = cohort.inboxes(cohort.sites)

    def refused(self, site: str, inbox: dict[str, bytes], words: str) -> None:
        cohort = self.cohort
        with pytest.raises(OrderRefused, match=words):
            secagg.check_inbox(site, cohort.secrets[site], inbox, cohort.terms)
        with pytest.raises(OrderRefused, match=words):
            cohort.unmask(site, inbox, cohort.sites, cohort.sites)

    def test_honest_ones_open(self):
        for site, inbox in self.inboxes.items():
            secagg.check_inbox(site, self.cohort.secrets[site], inbox, self.cohort.terms)

    @given(place=st.integers(0, 59), flip=st.integers(1, 255))
    @settings(deadline=None, max_examples=30)
    def test_any_altered_byte_is_noticed(self, place, flip):
        inbox = dict(self.inboxes["site-001"])
        altered = bytearray(inbox["site-002"])
        altered[place] ^= flip
        self.refused("site-001", inbox | {"site-002": bytes(altered)}, "shares of site-002 cannot")

    @pytest.mark.parametrize("length", [0, 11, 12, 27, 59, 61])
    def test_another_length_is_refused(self, length):
        inbox = self.inboxes["site-001"]
        wrong = (inbox["site-002"] + b"!")[:length]
        self.refused("site-001", inbox | {"site-002": wrong}, "shares of site-002 cannot")

    def test_shares_for_another_site_or_from_another_or_sent_back(self):
        inbox = self.inboxes["site-001"]
        for wrong in (
            self.inboxes["site-003"]["site-002"],
            inbox["site-000"],
            self.inboxes["site-002"]["site-001"],
        ):
            self.refused("site-001", inbox | {"site-002": wrong}, "shares of site-002 cannot")

    def test_shares_of_another_round_or_attempt(self):
        for context in (context_of("run-1", "plan", 1, 0), context_of("run-1", "plan", 0, 1)):
            other = Cohort(names(4), 3, context=context).inboxes(names(4))["site-001"]
            inbox = self.inboxes["site-001"]
            self.refused("site-001", inbox | {"site-002": other["site-002"]}, "of site-002 cannot")

    def test_the_same_secrets_under_another_threshold(self):
        strict = Cohort(names(4), 4)
        self.refused("site-001", strict.inboxes(names(4))["site-001"], "cannot be opened")

    def test_its_own_shares_do_not_come_back(self):
        inbox = {s: c for s, c in self.inboxes["site-001"].items() if s != "site-001"}
        self.refused("site-001", inbox, "sealed for itself")

    def test_nothing_of_a_share_is_in_what_the_server_sees(self):
        again = self.cohort.inboxes(self.cohort.sites)
        seen = [c for inbox in (*self.inboxes.values(), *again.values()) for c in inbox.values()]
        assert len(set(seen)) == len({c[:12] for c in seen}) == len(seen), "a nonce came twice"


class TestAServerThatEquivocatesAboutSurvivors:
    """It tells some sites that another dropped out (and gets its mask secret's shares), and others
    that it survived (and gets its self-mask secret's): with both it reads that site's update."""

    @pytest.mark.parametrize(("count", "threshold"), [(2, 2), (4, 3), (5, 3), (6, 4)])
    def test_no_two_sets_of_survivors_find_enough_signatures(self, count, threshold):
        """Every way to tell each site one of two sets, which is all that a site signs."""
        cohort = Cohort(names(count), threshold)
        sets = [cohort.sites, cohort.sites[:-1]]
        signed = {
            (site, which): secagg.check_consistency(
                cohort.identities[site], sets[which], cohort.terms
            )
            for site in cohort.sites
            for which in (0, 1)
        }
        for told in product((0, 1), repeat=count):
            accepted = []
            for which, survivors in enumerate(sets):
                signatures = {
                    site: signed[site, which]
                    for site, said in zip(cohort.sites, told, strict=True)
                    if said == which and site in survivors
                }
                try:
                    secagg.check_signatures(survivors, signatures, cohort.accepted, cohort.terms)
                except OrderRefused:
                    continue
                accepted.append(which)
            assert len(accepted) <= 1, f"told {told}, the sites reveal for both sets"

    def test_signatures_over_other_survivors_do_not_count(self):
        cohort = Cohort(names(4), 3)
        told = cohort.sites[:-1]
        signatures = {
            s: secagg.check_consistency(cohort.identities[s], told, cohort.terms) for s in told
        }
        secagg.check_signatures(told, signatures, cohort.accepted, cohort.terms)
        with pytest.raises(OrderRefused, match="the server equivocates"):
            secagg.check_signatures(cohort.sites, signatures, cohort.accepted, cohort.terms)
        few = dict(list(signatures.items())[:2])
        with pytest.raises(OrderRefused, match="2 sites signed the survivors, and 3"):
            secagg.check_signatures(told, few, cohort.accepted, cohort.terms)

    def test_signatures_of_strangers_of_others_and_of_other_rounds_do_not_count(self):
        cohort = Cohort(names(4), 3)
        later = Cohort(names(4), 3, context=context_of("run-1", "plan", 1, 0))
        good = {
            s: secagg.check_consistency(cohort.identities[s], cohort.sites, cohort.terms)
            for s in cohort.sites
        }
        old = secagg.check_consistency(cohort.identities["site-003"], cohort.sites, later.terms)
        for forged in (
            good | {"sybil": good["site-000"]},
            good | {"site-003": good["site-000"]},
            good | {"site-003": old},
            good | {"site-003": bytes(64)},
        ):
            with pytest.raises(OrderRefused, match=r"did not sign|not among the survivors"):
                secagg.check_signatures(cohort.sites, forged, cohort.accepted, cohort.terms)

    def test_a_signature_of_who_dropped_out_does_not_count(self):
        cohort = Cohort(names(5), 4)
        told = cohort.sites[:-1]
        signed = {
            s: secagg.check_consistency(cohort.identities[s], told, cohort.terms)
            for s in cohort.sites
        }
        with pytest.raises(OrderRefused, match="site-004 signed, but is not among"):
            secagg.check_signatures(told, signed, cohort.accepted, cohort.terms)

    def test_a_neighbourhood_of_which_too_few_survive(self):
        """Each set is large enough, but the shares near this site would reveal without a sum."""
        cohort = Cohort(names(12), 7, neighbours=4)
        near = cohort.terms.graph.of("site-000")
        survivors = [site for site in cohort.sites if site not in sorted(near)[:3]]
        inbox = cohort.inboxes(cohort.sites)["site-000"]
        with pytest.raises(OrderRefused, match="2 sites survive near this site, and 3"):
            cohort.unmask("site-000", inbox, cohort.sites, survivors)

    @given(st.data())
    @settings(deadline=None, max_examples=40)
    def test_one_answer_never_holds_both_secrets_of_a_site(self, data):
        cohort = Cohort(names(5), 3)
        inbox = cohort.inboxes(cohort.sites)["site-000"]
        senders = data.draw(st.sets(st.sampled_from([*cohort.sites, "sybil"])))
        survivors = data.draw(st.sets(st.sampled_from([*cohort.sites, "sybil"])))
        try:
            said = cohort.unmask("site-000", inbox, senders, survivors)
        except OrderRefused:
            fine = survivors <= senders <= set(cohort.sites)
            assert not (fine and "site-000" in survivors and len(survivors) >= 3)
            return
        assert not set(said.self_shares) & set(said.mask_shares)
        assert set(said.self_shares) == survivors
        assert set(said.mask_shares) == senders - survivors

    @pytest.mark.parametrize(
        ("senders", "survivors", "words"),
        [
            (names(4), [*names(3), "site-004"], "site-004 survives without having shared keys"),
            ([*names(5), "sybil"], names(5), "sybil shared keys without being in the roster"),
            (names(5), names(5)[1:], "site-000 is not among the survivors"),
            (names(5), names(2), "2 sites survive, and 3 are needed"),
        ],
    )
    def test_survivors_that_no_honest_server_names(self, senders, survivors, words):
        cohort = Cohort(names(5), 3)
        inbox = cohort.inboxes(cohort.sites)["site-000"]
        with pytest.raises(OrderRefused, match=words):
            cohort.unmask("site-000", inbox, senders, survivors)

    def test_a_site_alone_among_senders_masks_nothing(self):
        """With no peer only the self mask would hide it, and the server can ask for that."""
        cohort = Cohort(names(5), 3)
        vector = np.zeros(4, np.uint32)
        with pytest.raises(OrderRefused, match="2 sites shared keys with this site, and 3"):
            secagg.masked_input(
                vector, "site-000", cohort.secrets["site-000"], names(2), cohort.terms
            )
        assert not vector.any()
