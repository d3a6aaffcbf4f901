"""What may come into a build: deny.toml's rules, by Cargo's own account of the crates and by the lock files.

Knows no network and no advisories; those are cargo-deny's.
"""

from dataclasses import dataclass, field

from licences import allows

# How Cargo spells crates.io.
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
DIGEST_LENGTH = 64


@dataclass
class Tree:
    """The crates that are built for some targets, tests aside, and who asks for them."""

    packages: dict[str, dict]
    members: set[str]
    found: set[str] = field(default_factory=set)

    @staticmethod
    def of(accounts: list[dict]) -> "Tree":
        """From `cargo metadata`, once for each target."""
        tree = Tree({}, set(accounts[0]["workspace_members"]))
        for account in accounts:
            tree.packages |= {package["id"]: package for package in account["packages"]}
            nodes = {node["id"]: node for node in account["resolve"]["nodes"]}
            waiting, seen = list(tree.members), set()
            while waiting:
                if (name := waiting.pop()) not in seen:
                    seen.add(name)
                    waiting += built_with(nodes[name])
            tree.found |= seen
        return tree

    def crates(self) -> list[dict]:
        return sorted((self.packages[name] for name in self.found), key=label)

    def foreign(self) -> list[dict]:
        return [package for package in self.crates() if package["id"] not in self.members]


def built_with(node: dict) -> list[str]:
    return [link["pkg"] for link in node["deps"] if any(kind["kind"] != "dev" for kind in link["dep_kinds"])]


def label(package: dict) -> str:
    return f"{package['name']}@{package['version']}"


def locks(name: str, lock: dict, own: set[str]) -> list[str]:
    """Every crate is crates.io's and has its digest, but for those of this repository."""
    troubles = []
    for package in lock["package"]:
        what, source = f"{name}: {label(package)}", package.get("source")
        if source is None:
            if package["name"] not in own:
                troubles.append(f"{what} comes from a path, expected crates.io")
        elif source != CRATES_IO:
            troubles.append(f"{what} comes from {source}, expected crates.io")
        elif len(package.get("checksum", "")) != DIGEST_LENGTH:
            troubles.append(f"{what} has no digest")
    return troubles


def licences(tree: Tree, rules: dict) -> list[str]:
    allowed, troubles = set(rules["allow"]), []
    exceptions = {row["crate"]: set(row["allow"]) for row in rules.get("exceptions", [])}
    needed, used = set(), set()
    for package in tree.foreign():
        expression = package.get("license")
        if not expression:
            troubles.append(f"{label(package)} tells no licence")
        elif not fulfils(expression, allowed):
            needed.add(package["name"])
            if not fulfils(expression, allowed | exceptions.get(package["name"], set())):
                troubles.append(f"{label(package)} is under {expression}, expected one of {', '.join(sorted(allowed))}")
        used |= {one for one in allowed if expression and fulfils(expression, {one})}
    troubles += [f"deny.toml excepts {name}, which needs no exception" for name in sorted(exceptions.keys() - needed)]
    troubles += [f"deny.toml allows {one}, which nothing is under" for one in sorted(allowed - used)]
    return troubles


def fulfils(expression: str, allowed: set[str]) -> bool:
    try:
        return allows(expression, allowed)
    except ValueError:
        return False


def duplicates(tree: Tree, rules: dict) -> list[str]:
    """One version of each crate, those that are skipped aside."""
    versions: dict[str, set[str]] = {}
    for package in tree.crates():
        versions.setdefault(package["name"], set()).add(package["version"])
    troubles = []
    for row in rules.get("skip", []):
        name, _, wanted = row["crate"].partition("@")
        skipped = {version for version in versions.get(name, set()) if covers(wanted, version)}
        if not skipped or len(versions[name]) < 2:
            troubles.append(f"deny.toml skips {row['crate']}, which is no second version")
        else:
            versions[name] -= skipped
    troubles += [f"{name} is there as {' and '.join(sorted(all_))}" for name, all_ in sorted(versions.items()) if len(all_) > 1]
    return troubles


def covers(wanted: str, version: str) -> bool:
    return not wanted or version == wanted or version.startswith(f"{wanted}.")


def banned(tree: Tree, rules: dict) -> list[str]:
    reasons = {row["crate"]: row.get("reason", "") for row in rules.get("deny", [])}
    return [f"{label(package)} is banned: {reasons[package['name']]}" for package in tree.crates() if package["name"] in reasons]


def wildcards(tree: Tree) -> list[str]:
    """A dependency without a version takes whatever comes. Those of the workspace are where their paths say."""
    return [
        f"{label(package)} asks for {link['name']} in any version"
        for package in tree.crates()
        if package["id"] in tree.members
        for link in package["dependencies"]
        if link["req"] == "*" and link["source"] is not None
    ]


def troubles(tree: Tree, lock_files: dict[str, tuple[dict, set[str]]], rules: dict) -> list[str]:
    found = [trouble for name, (lock, own) in lock_files.items() for trouble in locks(name, lock, own)]
    found += licences(tree, rules["licenses"])
    found += duplicates(tree, rules["bans"])
    found += banned(tree, rules["bans"])
    return found + wildcards(tree)
