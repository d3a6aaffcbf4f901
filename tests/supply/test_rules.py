"""Every rule finds what breaks it: the true account of this repository, with one thing made wrong."""

import copy
import unittest

import account
import rules
from licences import allows


class Broken(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.policy = account.policy()
        cls.accounts = [account.metadata(target) for target in cls.policy["graph"]["targets"][:1]]
        cls.locks = account.lock_files()

    def setUp(self):
        self.policy = copy.deepcopy(type(self).policy)
        self.accounts = copy.deepcopy(type(self).accounts)
        self.locks = copy.deepcopy(type(self).locks)

    def package(self, name: str) -> dict:
        return next(package for package in self.accounts[0]["packages"] if package["name"] == name)

    def locked(self, name: str, file: str = "Cargo.lock") -> dict:
        return next(package for package in self.locks[file][0]["package"] if package["name"] == name)

    def found(self) -> list[str]:
        return rules.troubles(rules.Tree.of(self.accounts), self.locks, self.policy)

    def expect(self, *words: str) -> None:
        found = self.found()
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def test_nothing_is_wrong_with_what_is_true(self):
        self.assertEqual(self.found(), [])

    def test_a_crate_of_a_git_repository(self):
        self.locked("tokio")["source"] = "git+https://example.org/tokio?rev=1#1"
        self.expect("tokio@", "git+", "expected crates.io")

    def test_a_crate_of_another_registry(self):
        self.locked("prost")["source"] = "registry+https://example.org/index"
        self.expect("prost@", "example.org")

    def test_a_crate_of_a_path_that_is_not_ours(self):
        del self.locked("bytes")["source"]
        self.expect("bytes@", "from a path")

    def test_a_crate_without_a_digest(self):
        del self.locked("axum")["checksum"]
        self.expect("axum@", "no digest")

    def test_lock_files_of_other_workspaces_count(self):
        (name,) = [name for name in self.locks if name.startswith("fuzz/")]
        package = next(one for one in self.locks[name][0]["package"] if "source" in one)
        package["source"] = "git+https://example.org/x"
        self.expect("fuzz/Cargo.lock", package["name"])

    def test_a_licence_that_is_not_allowed(self):
        self.package("hyper")["license"] = "GPL-3.0-only"
        self.expect("hyper@", "GPL-3.0-only")

    def test_one_side_of_an_and_that_is_not_allowed(self):
        self.package("hyper")["license"] = "MIT AND GPL-3.0-only"
        self.expect("hyper@", "GPL-3.0-only")

    def test_no_licence(self):
        self.package("hyper")["license"] = None
        self.expect("hyper@", "no licence")

    def test_what_is_no_expression(self):
        self.package("hyper")["license"] = "MIT OR"
        self.expect("hyper@", "MIT OR")

    def test_an_exception_is_its_crates_alone(self):
        self.package("hyper")["license"] = "ISC"
        self.expect("hyper@", "ISC")

    def test_an_exception_that_nothing_needs(self):
        self.policy["licenses"]["exceptions"].append({"crate": "hyper", "allow": ["ISC"]})
        self.expect("hyper", "no exception")

    def test_a_licence_that_nothing_is_under(self):
        self.policy["licenses"]["allow"].append("CC0-1.0")
        self.expect("CC0-1.0", "nothing is under")

    def test_a_second_version(self):
        second = copy.deepcopy(self.package("bytes"))
        second |= {"version": "0.5.6", "id": "second"}
        self.accounts[0]["packages"].append(second)
        self.accounts[0]["resolve"]["nodes"].append({"id": "second", "deps": []})
        root = self.accounts[0]["workspace_members"][0]
        node = next(node for node in self.accounts[0]["resolve"]["nodes"] if node["id"] == root)
        node["deps"].append({"pkg": "second", "dep_kinds": [{"kind": None}]})
        self.expect("bytes", "0.5.6")
        node["deps"][-1]["dep_kinds"] = [{"kind": "dev"}]
        self.assertEqual(self.found(), [], "what tests alone need is not built")

    def test_a_skipped_version_that_is_not_there(self):
        self.policy["bans"]["skip"].append({"crate": "bytes@0.5"})
        self.expect("bytes@0.5", "no second version")

    def test_a_skip_that_is_missing(self):
        self.policy["bans"]["skip"] = [row for row in self.policy["bans"]["skip"] if row["crate"] != "syn@2"]
        self.expect("syn", " and ")

    def test_a_crate_that_is_banned(self):
        self.policy["bans"]["deny"].append({"crate": "socket2", "reason": "for this test"})
        self.expect("socket2@", "for this test")

    def test_any_version(self):
        link = next(one for one in self.package("kinglet")["dependencies"] if one["name"] == "tokio")
        link["req"] = "*"
        self.expect("tokio", "any version")


class Licences(unittest.TestCase):
    def test_expressions(self):
        allowed = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"}
        rows = [
            ("MIT", True),
            ("ISC", False),
            ("MIT/ISC", True),
            ("ISC OR MIT", True),
            ("ISC AND MIT", False),
            ("MIT OR ISC AND Zlib", True),
            ("(MIT OR ISC) AND Zlib", False),
            ("(MIT OR ISC) AND Apache-2.0", True),
            ("Apache-2.0 WITH LLVM-exception", True),
            ("MIT WITH LLVM-exception", False),
        ]
        for expression, held in rows:
            self.assertEqual(allows(expression, allowed), held, expression)
        for wrong in ("", "MIT MIT", "(MIT", "MIT)", "OR MIT", "MIT AND"):
            with self.assertRaises(ValueError, msg=wrong):
                allows(wrong, allowed)


if __name__ == "__main__":
    unittest.main()
