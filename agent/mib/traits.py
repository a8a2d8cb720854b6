"""What SMI cannot say of an object, one row per object that can be written or is kept secret.

Which column makes a row, which value removes it, what it points to, whether it is a
secret, what it does, how far this engine can do it. `check_traits` compares the rows with
the compiled modules at start: an object without a row, or a row without its object, stops
the agent. The rows themselves stand in the traits_* files, in the order of the MIB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent.mib import (
    traits_admin,
    traits_aliases,
    traits_cert,
    traits_ext,
    traits_globals,
    traits_ike,
    traits_ikev2,
    traits_peers,
    traits_phase2,
    traits_radius,
    traits_selectors,
    traits_tuning,
    traits_xauth,
)
from agent.mib.schema import MAKERS, Column, Keeping, Role, Table, Traits

LIVE_TABLES = traits_ext.LIVE_TABLES | {
    *("ipsecPeerStatTable", "ikeSaTable", "ikev2SaTable", "ikev2RedirectTable", "ipsecSaTable", "ipsecBundleTable"),
    *("ipsecTrafficSelectorTable", "ipsecStats", "certStats", "certCacheStats"),
    *("ipsecAlgorithmTable", "ipsecLifeTimeTable"),
}
"""Tables whose rows the agent makes while it runs; all others are configuration and stored."""


NUMBER_COLUMNS = (
    *("ipsecPeerIndex", "ipsecTrIndex", "ikePropIndex", "ikePrfIndex", "ipsecPropIndex", "ipsecPrfIndex"),
    *("ipsecPeerStatIndex", "ikeSaIndex", "ikev2SaIndex", "ipsecSaIndex", "ipsecBundleIndex"),
    *("ipsecTrafficSelectorIndex", "ipsecAlgId", "ipsecLifeIndex"),
    *("ipsecPubKeyIndex", "certIndex", "certRevListIndex", "certMgmtIndex"),
)
"""Read-only columns of the published tables that show the number of their row, beside the INDEX that is not shown."""

REFUSED = "tests/test_every_object.py::test_what_does_not_act_yet_takes_its_default_only"
KEPT = "tests/test_every_object.py::test_rows_of_what_does_not_act_yet_are_made_and_kept"


def _with_what_shows_it(traits: Traits) -> Traits:
    """What does not act yet is shown by one test of all such objects."""
    if traits.stage == "skeleton" or traits.shown:
        return traits
    return replace(traits, shown=KEPT if traits.role in MAKERS else REFUSED)


_ROWS: dict[str, Traits] = {
    **{name: Traits(role=Role.INDEX) for name in NUMBER_COLUMNS},
    **traits_globals.TRAITS,
    **traits_peers.TRAITS,
    **traits_ike.TRAITS,
    **traits_phase2.TRAITS,
    **traits_xauth.TRAITS,
    **traits_selectors.TRAITS,
    **traits_ikev2.TRAITS,
    **traits_cert.TRAITS,
    **traits_radius.TRAITS,
    **traits_tuning.TRAITS,
    **traits_aliases.TRAITS,
    **traits_ext.TRAITS,
    **traits_admin.TRAITS,
}
TRAITS: dict[str, Traits] = {name: _with_what_shows_it(traits) for name, traits in _ROWS.items()}


class SchemaError(Exception):
    """The compiled modules and the traits do not fit together; the text lists every misfit."""


def check_traits(tables: Iterable[Table], aliases: Mapping[str, str]) -> None:
    """Every writable object has its row, every row its object, and what it names is there. `aliases`: objects without
    cells, and the objects that have them. Raises SchemaError."""
    by_name = {table.name: table for table in tables}
    columns: dict[str, Column] = {column.name: column for table in by_name.values() for column in table.columns}
    misfits = [f"{name}: traits without an object" for name in TRAITS if name not in columns and name not in aliases]
    misfits += [
        f"{name}: reads {target}, which is no object" for name, target in aliases.items() if target not in columns
    ]
    for column in columns.values():
        if column.writable and column.name not in TRAITS:
            misfits.append(f"{column.name}: writable without traits")
        misfits += _misfits(column, by_name)
    if misfits:
        raise SchemaError("\n".join(misfits))


def _misfits(column: Column, tables: dict[str, Table]) -> list[str]:
    traits = column.traits
    found = [
        f"{column.name}: {what} {name}, which is no table"
        for what, name in (("links to", traits.links), ("heads", traits.heads), ("refers to", traits.refers))
        if name and name not in tables
    ]
    if traits.refers_else is not None:
        chooser, _, other = traits.refers_else
        if other not in tables or chooser not in tables[column.table].by_name:
            found.append(f"{column.name}: refers else to {other} by {chooser}, which are no table and column beside it")
    if traits.links and traits.links != column.table:
        found.append(f"{column.name}: links to another table, {traits.links}")
    if traits.deletes is not None and traits.deletes not in column.names:
        found.append(f"{column.name}: delete value {traits.deletes} is no label")
    if traits.role is Role.SECRET and tables[column.table].keeping is Keeping.STORED:  # live ones are kept nowhere
        sealed = tables[column.table].by_name.get(traits.sealed_in)
        if sealed is None or sealed.traits.role is not Role.SEALED:
            found.append(f"{column.name}: sealed in {traits.sealed_in}, which is no sealed column beside it")
    if column.writable and not traits.effect and traits.role is Role.PLAIN:
        found.append(f"{column.name}: no effect is stated")
    return found
