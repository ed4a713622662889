"""The Terraform checks on a machine without the programs that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra import check

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_check_that_cannot_run_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A machine without Terraform passes, and the output says what was not checked."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TEST_SERVERS", raising=False)

    assert check.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "Terraform, format, validity and tests: NOT CHECKED, terraform is not installed",
        "Terraform, lint: NOT CHECKED, tflint is not installed",
    ]
