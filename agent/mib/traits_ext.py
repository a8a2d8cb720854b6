"""Traits of IPSEC-GATEWAY-EXT-MIB but for those of traits_admin.py: a row per writable or secret object."""

from agent.mib.schema import Role, Traits

CONFIGURED_ROWS = (
    *("Peer", "Traffic", "IkeProposal", "IkeProfile", "IpsecProposal", "IpsecProfile", "Ikev2Profile"),
    *("XauthProfile", "XauthUser", "Dial", "PeerTraffic", "InternalSubnet", "PublicKey", "CertServer", "CertMgmt"),
    *("RadiusServer", "Certificate", "RevocationList", "PeerAddress", "PeerRoute", "Pool", "User", "Target"),
    *("Source", "Filter", "LoginKey"),
)
"""Rows with ipsecGw…RowStatus and ipsecGw…RowGeneration."""

APPLIED_ROWS = ("Peer", "Traffic", "IkeProposal", "IkeProfile", "IpsecProposal", "IpsecProfile", "Ikev2Profile")
"""Rows with ipsecGw…ApplyState, ipsecGw…LastError and ipsecGw…AppliedGeneration."""

LIVE_TABLES = frozenset(
    {
        *("ipsecGwStatus", "ipsecGwFreeIndices", "ipsecGwStats64", "ipsecGwPeerCountersTable"),
        *("ipsecGwDocumentTable", "ipsecGwSegmentTable", "ipsecGwImportTable", "ipsecGwEventTable"),
        *("ipsecGwNatConflictTable", "ipsecGwWizardLogTable", "ipsecGwSavedTable", "biboAdmConfigTable"),
        *(f"ipsecGw{row}ApplyTable" for row in APPLIED_ROWS),
    }
)

FARES = "test_packets_fare_as_explain_says"
IPV6_RULE = (
    "A rule that has one takes the place of its IPv4 addresses; both sides have one, :: with prefix length 0 for any,"
    " or are outer addresses. The tunnel may be between IPv4 addresses"
)
ROW_STATUS = (
    "tests/test_every_object.py::test_a_row_status_makes_suspends_and_removes; "
    "tests/test_row_status_model.py::test_every_field_of_the_rfcs_table"
)
OLD_PLAN = "Not planned yet: a value other than the default is refused"


def _rows() -> dict[str, Traits]:
    rows: dict[str, Traits] = {}
    for row in CONFIGURED_ROWS:
        rows[f"ipsecGw{row}RowStatus"] = Traits(
            role=Role.ROW_STATUS,
            effect="Makes, suspends and removes the row (RFC 2579)",
            mechanism="store",
            shown=ROW_STATUS,
        )
        rows[f"ipsecGw{row}RowGeneration"] = Traits(
            role=Role.ROW_GENERATION,
            effect="In a SET: refuses it unless the row is still as it was when this number was read",
            mechanism="store",
            shown="tests/test_every_object.py::test_a_row_generation_lets_the_first_of_two_editors_pass",
        )
    return rows


def _later(effect: str, mechanism: str, limit: str = OLD_PLAN, stage: str = "gateway") -> Traits:
    return Traits(stage=stage, effect=effect, mechanism=mechanism, limit=limit, disturbs="renegotiates peer")


CONTROL = {
    "ipsecGwAllowLockout": Traits(
        role=Role.TRANSIENT,
        effect="In the same SET: lets a change pass that cuts the flow it came by or an open TCP connection",
        mechanism="plan.spd",
        shown=(
            "tests/test_setchecks.py::test_a_rule_that_lets_them_pass_makes_it_acceptable;"
            " tests/test_setchecks.py::test_a_rule_cuts_by_the_interface_that_the_station_comes_by; lab: lockout"
        ),
    ),
    "ipsecGwReadSources": Traits(
        effect="The read community is accepted from these networks only",
        mechanism="snmp",
        limit="SNMP only",
        shown="tests/test_snmp_standard_access.py::test_communities_come_from_their_networks_only",
    ),
    "ipsecGwWriteSources": Traits(
        effect="The write community is accepted from these networks only",
        mechanism="snmp",
        limit="SNMP only",
        shown="tests/test_snmp_standard_access.py::test_a_write_community_comes_from_its_networks_only",
    ),
    "ipsecGwCommand": Traits(
        role=Role.TRANSIENT,
        effect=(
            "clear-configuration removes the IPsec configuration in one commit; reconcile compares kernel and charon"
            " with it at once; accept-store goes on with the copy of a damaged database"
        ),
        mechanism="store, backends",
        disturbs="ends all tunnels (clear-configuration)",
        shown=(
            "tests/test_clear.py::test_it_is_as_at_a_first_start_but_for_keys_certificates_and_users; "
            "tests/test_clear.py::test_reconcile_acts_although_nothing_differs; "
            "tests/test_store_damage.py::test_a_damaged_store_is_read_only_until_one_set_accepts_it"
        ),
    ),
}

ALGORITHMS = {
    name: Traits(effect=effect, mechanism="plan.ike", limit=limit, disturbs="renegotiates peer", shown=shown)
    for name, effect, limit, shown in (
        (
            "ipsecGwIkePropAead",
            "AES-GCM or ChaCha20-Poly1305 is offered in phase 1",
            "IKEv2 only (RFC 5282): for IKEv1 peers the proposal is left out, and the row says so",
            "lab: phase1_version2; tests/test_plan_algorithms.py::test_combined_ciphers_of_phase_1_are_for_version_2",
        ),
        (
            "ipsecGwIkePropPrf",
            "Pseudo-random function beside a combined cipher",
            "Other ciphers have that of their hash",
            "lab: phase1_version2; tests/test_plan_algorithms.py::test_combined_ciphers_of_phase_1_are_for_version_2",
        ),
        (
            "ipsecGwIkePropGroup",
            "A modern group is offered in phase 1",
            "",
            "lab: phase1_version1; tests/test_plan_algorithms.py::test_modern_groups_of_phase_1",
        ),
        (
            "ipsecGwIkePrfGroup",
            "A modern group is used in phase 1 of peers with this profile (IKEv1)",
            "",
            "tests/test_plan_algorithms.py::test_modern_groups_of_phase_1",
        ),
        (
            "ipsecGwIpsecPropAead",
            "AES-GCM or ChaCha20-Poly1305 is offered for ESP",
            "ChaCha20-Poly1305 with IKEv2 only: IKEv1 has no number for it",
            "lab: phase2_version1; lab: phase2_version2",
        ),
        (
            "ipsecGwIpsecPrfPfsGroup",
            "A modern group gives phase 2 its forward secrecy",
            "As ipsecPrfPfsGroup",
            "lab: phase2_version1; lab: phase2_version2",
        ),
    )
}

ON_INTERFACES = (
    "tests/test_interfaces_kernel.py::test_a_virtual_interface_with_address_and_route_comes_and_goes_by_set; "
    "tests/test_links.py::test_a_link_comes_with_addresses_and_routes_and_goes"
)
NETWORKS = {
    "ipsecGwPeerAddressPeer": Traits(
        role=Role.CREATING,
        refers="ipsecPeerTable",
        effect="The virtual interface of this peer gets the address; creates the row",
        mechanism="backends.link",
        limit="Peers without a virtual interface have no use for it",
        shown=ON_INTERFACES,
    ),
    "ipsecGwPeerAddressAddress": Traits(
        effect="Address of the peer's virtual interface",
        mechanism="backends.link",
        shown=ON_INTERFACES,
    ),
    "ipsecGwPeerAddressPrefixLength": Traits(
        effect="Prefix of that address",
        mechanism="backends.link",
        limit="0 is the whole address",
        shown=ON_INTERFACES,
    ),
    "ipsecGwPeerAddressRemote": Traits(
        effect="Address of the other end of the interface",
        mechanism="backends.link",
        limit="Of the same family, else ignored",
        shown=ON_INTERFACES,
    ),
    "ipsecGwPeerRoutePeer": Traits(
        role=Role.CREATING,
        refers="ipsecPeerTable",
        effect="The route goes through the virtual interface of this peer; creates the row",
        mechanism="backends.link",
        limit="Peers without a virtual interface have no use for it",
        shown=ON_INTERFACES,
    ),
    "ipsecGwPeerRouteDestination": Traits(
        effect="Network reached through the peer's interface",
        mechanism="backends.link",
        limit=(
            "While the interface is down the network is unreachable, unless the administrator has a route to the very"
            " same network; a default route has no such guard"
        ),
        shown=(
            f"{ON_INTERFACES}; tests/test_links.py::"
            "test_what_a_link_that_is_down_would_take_does_not_leave_by_a_larger_net"
        ),
    ),
    "ipsecGwPeerRoutePrefixLength": Traits(
        effect="Prefix of that network",
        mechanism="backends.link",
        shown=ON_INTERFACES,
    ),
    "ipsecGwPeerRouteMetric": Traits(
        effect="Of two routes to one network the lower metric is taken",
        mechanism="backends.link",
        limit="IPv6: 0 is 1024",
        shown=ON_INTERFACES,
    ),
    **{
        f"ipsecGwTr{side}{part}6": Traits(
            effect=f"The rule is about this IPv6 {what} of the {side.lower()} side",
            mechanism="plan.spd",
            limit=limit,
            disturbs="renegotiates peer",
            shown=f"tests/test_xfrm_packets.py::{test}; lab: ipv6_inside",
        )
        for side in ("Local", "Remote")
        for part, what, limit, test in (
            ("Address", "network", IPV6_RULE, FARES),
            ("PrefixLength", "prefix length", "0 with an address other than :: is refused", FARES),
            (
                "Range",
                "range",
                "As ipsecTrLocalRange, at most 254 prefixes",
                "test_a_range_begins_and_ends_where_it_says",
            ),
        )
    },
    "ipsecGwPoolId": Traits(
        role=Role.CREATING,
        stage="later",
        effect="Addresses of this pool are handed to peers whose ipsecPeerDynAddrPoolId names it; creates the row",
        mechanism="plan.ike",
        limit="Stored; peers do not hand out addresses yet (ipsecPeerDynAddrRole)",
    ),
    "ipsecGwPoolFirst": _later("First address of a pool's range", "plan.ike", stage="later"),
    "ipsecGwPoolLast": _later("Last address of a pool's range", "plan.ike", stage="later"),
    "ipsecGwPoolNameServer": _later(
        "Name server told to peers with an address of the range", "plan.ike", stage="later"
    ),
}

CERTIFICATES = {
    "ipsecGwCertMgmtSignature": _later("Hash that a request is signed with", "pki", stage="certificates"),
    "ipsecGwCertMgmtCoding": _later("Coding of a request that is uploaded or shown", "pki", stage="certificates"),
    "ipsecGwCertificateKind": Traits(
        effect="What a certificate is used for",
        mechanism="plan.credentials",
        limit="own needs a private key of this gateway, ca the mark of an authority in the certificate",
        disturbs="renegotiates peer",
        shown="tests/test_pki_imports.py::test_the_kind_of_a_certificate_has_to_fit_it",
    ),
    "ipsecGwPublicKeyData": Traits(role=Role.SEALED, effect="The private key", mechanism="store"),
}

JOBS = {
    "ipsecGwDocumentName": Traits(
        role=Role.CREATING,
        effect="Makes a document of this name",
        mechanism="store",
        shown="tests/test_documents.py::test_a_document_and_its_segments_in_one_set_in_any_order",
    ),
    "ipsecGwDocumentKind": Traits(
        effect="What the document holds",
        mechanism="store",
        shown="tests/test_named_configurations.py::test_a_document_is_what_its_kind_says",
    ),
    "ipsecGwDocumentState": Traits(
        deletes=2,
        effect="delete removes the document",
        mechanism="store",
        shown="tests/test_documents.py::test_written_delete_it_goes_with_its_segments",
    ),
    "ipsecGwSegmentData": Traits(
        role=Role.CREATING,
        effect="Makes or replaces a segment",
        mechanism="store",
        shown="tests/test_documents.py::test_size_count_and_digest_are_those_of_the_contents",
    ),
    "ipsecGwImportDocument": Traits(
        role=Role.CREATING,
        effect="Imports this document as soon as the SET is carried out",
        mechanism="store",
        shown=(
            "tests/test_named_configurations.py::test_an_import_is_one_generation; "
            "tests/test_pki_imports.py::test_only_what_a_document_may_hold_is_imported"
        ),
    ),
    "ipsecGwImportKind": Traits(
        effect="configuration replaces the whole configuration in one commit; certificates become rows of certTable",
        mechanism="store, pki",
        limit="Revocation lists are not imported yet",
        disturbs="ends the tunnels whose settings differ",
        shown=(
            "tests/test_named_configurations.py::test_an_import_is_one_generation; "
            "tests/test_pki_imports.py::test_an_own_certificate_with_its_key_and_chain; "
            "tests/test_pki_imports.py::test_authorities; "
            "lab: start_certificates"
        ),
    ),
    "ipsecGwImportCoding": Traits(
        effect="Coding of certificates and keys; auto tells PEM, base64, DER and PKCS #12 apart",
        mechanism="pki",
        shown="tests/test_pki_reading.py::test_every_coding_is_read",
    ),
    "ipsecGwImportName": Traits(
        effect="Description of the job and of what it makes",
        mechanism="store",
        shown=(
            "tests/test_named_configurations.py::test_a_job_bears_the_name_that_it_was_given; "
            "tests/test_pki_imports.py::test_an_own_certificate_with_its_key_and_chain"
        ),
    ),
    "ipsecGwImportTrusted": Traits(
        effect="A peer's certificate gets certForceTrusted true",
        mechanism="pki",
        limit="peer-certificate only",
        shown="tests/test_pki_imports.py::test_a_peers_certificate_may_be_trusted_as_it_is",
    ),
    "ipsecGwImportPassword": Traits(
        role=Role.SECRET,
        effect="Opens a configuration that was exported with secrets, a sealed key or a PKCS #12 file; never shown",
        mechanism="store",
        shown=(
            "tests/test_named_configurations.py::test_an_import_is_one_generation; "
            "tests/test_named_configurations.py::test_what_is_wrong_is_told_in_words; "
            "tests/test_pki_imports.py::test_key_first_and_certificate_later"
        ),
    ),
    "ipsecGwImportUrl": _later("Fetches the file by tftp or http", "pki", stage="certificates"),
    "ipsecGwImportState": Traits(
        deletes=5,
        effect="delete removes a finished job",
        mechanism="store",
        shown="tests/test_named_configurations.py::test_an_import_is_one_generation",
    ),
    "biboAdmConfigCmd": Traits(
        role=Role.CREATING,
        effect="save, load, delete, move, copy act on named configurations; state reports one",
        mechanism="store",
        limit="put, get, put-all, get-all, reboot, reorg, unload and load-keep-certs are not done by this agent",
        disturbs="ends the tunnels whose settings differ (load)",
        shown=(
            "tests/test_named_configurations.py::test_save_and_load; "
            "tests/test_named_configurations.py::test_copy_move_delete_state"
        ),
    ),
    "biboAdmConfigObject": Traits(
        stage="later", effect="Limits the command to one table", mechanism="store", limit="Whole configurations only"
    ),
    "biboAdmConfigPath": Traits(
        effect="Names the configuration; empty is boot",
        mechanism="store",
        shown="tests/test_named_configurations.py::test_save_and_load",
    ),
    "biboAdmConfigPathNew": Traits(
        effect="New name, for copy and move",
        mechanism="store",
        shown="tests/test_named_configurations.py::test_copy_move_delete_state",
    ),
    "biboAdmConfigHost": Traits(
        stage="later", effect="Server of put and get", mechanism="store", limit="No files are exchanged with servers"
    ),
    "biboAdmConfigFile": Traits(
        stage="later", effect="File of put and get", mechanism="store", limit="No files are exchanged with servers"
    ),
    "biboAdmConfigTimeout": Traits(
        effect="Waits so many seconds before it begins",
        mechanism="store",
        shown=(
            "tests/test_named_configurations.py::test_a_command_can_wait_and_cannot_be_changed; "
            "tests/test_named_configurations.py::test_a_command_that_waits_can_be_stopped"
        ),
    ),
    "biboAdmConfigHostUrl": Traits(
        stage="later", effect="Server of put and get", mechanism="store", limit="No files are exchanged with servers"
    ),
    "biboAdmConfigCertIndex": Traits(
        stage="later", effect="Certificate towards the server", mechanism="store", limit="No files are exchanged"
    ),
}

TRAITS = {
    **_rows(),
    **CONTROL,
    **ALGORITHMS,
    **NETWORKS,
    **CERTIFICATES,
    **JOBS,
}
