"""Traits of the agent's own administration: system, notifications, users, targets, lists of sources, filters.

Objects of IPSEC-GATEWAY-EXT-MIB and IPSEC-GATEWAY-ADMIN-MIB that are about the agent as an
SNMP engine and not about IPsec. See traits.py.
"""

from agent.mib.schema import Role, Traits

SYSTEM = {
    "ipsecGwSystemContact": Traits(
        effect="sysContact reads it",
        mechanism="snmp",
        shown="tests/test_snmp_standard.py::test_contact_name_and_location_are_kept",
    ),
    "ipsecGwSystemName": Traits(
        effect="sysName reads it; empty: the name of the host",
        mechanism="snmp",
        shown="tests/test_snmp_standard.py::test_contact_name_and_location_are_kept",
    ),
    "ipsecGwSystemLocation": Traits(
        effect="sysLocation reads it",
        mechanism="snmp",
        shown="tests/test_snmp_standard.py::test_contact_name_and_location_are_kept",
    ),
    "ipsecGwNotifyAuthentication": Traits(
        effect="Whether authenticationFailure is sent",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_wrong_passwords_of_v3_are_told_and_can_be_switched_off",
    ),
    "ipsecGwNotifyPause": Traits(
        effect="Equal notifications about a peer are held back so long",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_equal_ones_are_held_back_and_the_last_is_told_with_their_number",
    ),
    "ipsecGwNotifyExpiry": Traits(
        effect="So long before its end a certificate is reported",
        mechanism="snmp",
        shown="tests/test_notification_events.py::test_certificates_are_told_of_before_and_at_their_end_once_each",
    ),
    "ipsecGwNotifyMost": Traits(
        effect="At most so many notifications in a minute",
        mechanism="snmp",
        shown=(
            "tests/test_notify_settings.py::test_no_more_than_so_many_in_a_minute; "
            "tests/test_notify_pacing.py::test_beyond_the_minutes_number_others_are_summed_up_and_peers_told_later"
        ),
    ),
}

USERS = {
    "ipsecGwUserName": Traits(
        role=Role.CREATING,
        effect="Security name; creates the row",
        mechanism="snmp",
        shown="tests/test_snmp_passwords.py::test_a_user_made_by_set_speaks_every_protocol",
    ),
    "ipsecGwUserLevel": Traits(
        effect="What the user may see and change",
        mechanism="snmp",
        shown=(
            "tests/test_snmp_users.py::test_levels_count_and_changes_take_effect_at_once; "
            "tests/test_snmp_standard_access.py::test_levels"
        ),
    ),
    "ipsecGwUserAuthProtocol": Traits(
        effect="Messages of the user are authenticated by it",
        mechanism="snmp",
        limit="Changed together with the passwords, which the keys are made of; none has no access",
        shown=(
            "tests/test_snmp_passwords.py::test_a_user_made_by_set_speaks_every_protocol; "
            "tests/test_snmp_passwords.py::test_protocol_and_passwords_change_together"
        ),
    ),
    "ipsecGwUserPrivProtocol": Traits(
        effect="Messages of the user are encrypted by it",
        mechanism="snmp",
        limit="Needs ipsecGwUserPrivPassword in the same SET where there is no key for privacy yet",
        shown=(
            "tests/test_snmp_passwords.py::test_a_user_made_by_set_speaks_every_protocol; "
            "tests/test_snmp_passwords.py::test_protocol_and_passwords_change_together"
        ),
    ),
    "ipsecGwUserAuthKey": Traits(role=Role.SEALED, effect="Authentication key of the user", mechanism="store"),
    "ipsecGwUserPrivKey": Traits(role=Role.SEALED, effect="Privacy key of the user", mechanism="store"),
    "ipsecGwUserAuthPassword": Traits(
        role=Role.SECRET,
        sealed_in="ipsecGwUserAuthKey",
        effect="The authentication key is made of it; the password itself is not kept",
        mechanism="snmp",
        limit="8 octets or more",
        shown=(
            "tests/test_snmp_passwords.py::test_a_user_made_by_set_speaks_every_protocol; "
            "tests/test_snmp_passwords.py::test_the_password_is_kept_nowhere"
        ),
    ),
    "ipsecGwUserPrivPassword": Traits(
        role=Role.SECRET,
        sealed_in="ipsecGwUserPrivKey",
        effect="The privacy key is made of it; the password itself is not kept",
        mechanism="snmp",
        limit="8 octets or more",
        shown=(
            "tests/test_snmp_passwords.py::test_a_user_made_by_set_speaks_every_protocol; "
            "tests/test_snmp_passwords.py::test_the_password_is_kept_nowhere"
        ),
    ),
    "ipsecGwUserSourceList": Traits(
        effect="The user is accepted from these networks only",
        mechanism="snmp",
        shown="tests/test_snmp_standard_access.py::test_users_come_from_their_networks_only",
    ),
    "ipsecGwUserPublic": Traits(
        effect="usmUserPublic reads and writes it",
        mechanism="snmp",
        shown="tests/test_snmp_standard_users.py::test_what_is_left_in_public_comes_with_the_key_change_and_is_kept",
    ),
    "ipsecGwTargetName": Traits(
        effect="snmpTargetAddrName reads it",
        mechanism="snmp",
        shown="tests/test_snmp_standard.py::test_targets_and_filters_are_shown",
    ),
    "ipsecGwTargetAddress": Traits(
        role=Role.CREATING,
        effect="Notifications go to this address; creates the row",
        mechanism="snmp",
        shown=(
            "tests/test_notifications.py::test_a_change_is_told_by_v2c_with_the_objects_of_the_mib; "
            "tests/test_notifications.py::test_ipv6"
        ),
    ),
    "ipsecGwTargetPort": Traits(
        effect="UDP port that notifications go to",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_a_change_is_told_by_v2c_with_the_objects_of_the_mib",
    ),
    "ipsecGwTargetKind": Traits(
        effect="inform: repeated until it is acknowledged",
        mechanism="snmp",
        shown=(
            "tests/test_notifications.py::test_an_inform_is_acknowledged_and_not_repeated; "
            "tests/test_notify_settings.py::test_an_inform_is_repeated_so_often_after_so_long"
        ),
    ),
    "ipsecGwTargetVersion": Traits(
        effect="SNMP version of the messages",
        mechanism="snmp",
        shown=(
            "tests/test_notifications.py::test_a_trap_of_v1_has_enterprise_and_specific_number; "
            "tests/test_notifications.py::test_traps_of_v3_are_from_our_engine"
        ),
    ),
    "ipsecGwTargetUser": Traits(
        refers="ipsecGwUserTable",
        effect="SNMPv3 messages are sent as this user",
        mechanism="snmp",
        shown=(
            "tests/test_notifications.py::test_traps_of_v3_are_from_our_engine; "
            "tests/test_notifications.py::test_informs_of_v3_find_the_receivers_engine"
        ),
    ),
    "ipsecGwTargetCommunity": Traits(
        role=Role.SECRET,
        sealed_in="ipsecGwTargetCommunityData",
        effect="Community of v1 and v2c messages; reads back as *",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_a_change_is_told_by_v2c_with_the_objects_of_the_mib",
    ),
    "ipsecGwTargetCommunityData": Traits(role=Role.SEALED, effect="The community", mechanism="store"),
    "ipsecGwTargetTimeout": Traits(
        effect="So long an acknowledgement is waited for",
        mechanism="snmp",
        shown="tests/test_notify_settings.py::test_an_inform_is_repeated_so_often_after_so_long",
    ),
    "ipsecGwTargetRetries": Traits(
        effect="So often an inform is repeated",
        mechanism="snmp",
        shown="tests/test_notify_settings.py::test_an_inform_is_repeated_so_often_after_so_long",
    ),
    "ipsecGwTargetEngine": Traits(
        effect="Engine ID of an SNMPv3 receiver of informs",
        mechanism="snmp",
        shown="tests/test_notify_settings.py::test_a_known_engine_is_spoken_to_at_once",
    ),
    "ipsecGwSourceList": Traits(
        role=Role.CREATING,
        effect="The network belongs to this list; creates the row",
        mechanism="snmp",
        shown="tests/test_snmp_standard_access.py::test_communities_come_from_their_networks_only",
    ),
    "ipsecGwSourceAddress": Traits(
        effect="Messages from this network are accepted",
        mechanism="snmp",
        shown="tests/test_snmp_standard_access.py::test_communities_come_from_their_networks_only",
    ),
    "ipsecGwSourcePrefixLength": Traits(
        effect="Size of that network",
        mechanism="snmp",
        shown=(
            "tests/test_snmp_standard_access.py::test_communities_come_from_their_networks_only; "
            "tests/test_snmp_standard_access.py::test_lists_admit_what_lies_in_one_of_their_networks"
        ),
    ),
    "ipsecGwFilterTarget": Traits(
        role=Role.CREATING,
        refers="ipsecGwTargetTable",
        effect="The rule is about what this target gets; creates the row",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_filters_choose_what_a_target_gets",
    ),
    "ipsecGwFilterSubtree": Traits(
        effect="Notifications of this subtree are meant",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_filters_choose_what_a_target_gets",
    ),
    "ipsecGwFilterMask": Traits(
        effect="Which arcs of the subtree count",
        mechanism="snmp",
        shown="tests/test_notify_settings.py::test_a_mask_leaves_out_one_peer",
    ),
    "ipsecGwFilterType": Traits(
        effect="Whether what matches is sent",
        mechanism="snmp",
        shown="tests/test_notifications.py::test_filters_choose_what_a_target_gets",
    ),
    "ipsecGwLoginKeyUser": Traits(
        role=Role.CREATING,
        refers="ipsecGwUserTable",
        effect="The key is one of this user; creates the row",
        mechanism="snmp",
        shown="tests/test_shell_ssh.py::test_a_key_opens_the_shell_and_no_other_does",
    ),
    "ipsecGwLoginKeyText": Traits(
        effect="The user logs in over SSH by this key",
        mechanism="shell",
        limit="255 octets: no RSA",
        shown="tests/test_shell_ssh.py::test_a_key_opens_the_shell_and_no_other_does",
    ),
}

TRAITS = {**SYSTEM, **USERS}
