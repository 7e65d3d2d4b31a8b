"""The mutations of ``tools/mutate.py`` fit the code."""

from __future__ import annotations

import pytest

from tools.mutate import ROOT, Mutation, load_mutations


@pytest.mark.parametrize("mutation", load_mutations(), ids=lambda mutation: mutation.name)
def test_every_mutation_can_be_made_and_names_existing_tests(mutation: Mutation) -> None:
    text = mutation.mutated_text(ROOT)
    if mutation.file.endswith(".py"):
        compile(text, mutation.file, "exec")
    tests = [test.partition("::")[::2] for test in mutation.tests if "/" in test]
    assert tests
    for file, name in tests:
        assert (ROOT / file).exists(), file
        function = name.rpartition("::")[2].partition("[")[0]
        assert not name or f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"
