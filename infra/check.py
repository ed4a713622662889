"""`python -m infra.check`: checks format, validity, tests and lint of the Terraform configuration in this folder.

It runs the checks whose programs are installed, and prints one line for each check that cannot run. The google provider
comes from `terraform -chdir=infra init -backend=false`, from a CLI configuration in TF_CLI_CONFIG_FILE that names its
location, or from the folder of test servers in TEST_SERVERS, which may also contain tflint.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROVIDER = "hashicorp/google"


def main() -> int:
    """Runs every possible check and returns 1 if one of them failed, otherwise 0."""
    servers = os.environ.get("TEST_SERVERS", "")
    path = os.pathsep.join(part for part in (os.environ.get("PATH", ""), servers) if part)
    terraform, tflint = (shutil.which(name, path=path) for name in ("terraform", "tflint"))
    passed = []
    if terraform is None:
        report_not_checked("format, validity and tests", "terraform is not installed")
    else:
        passed.append(run_check("format", terraform, "fmt", "-check", "-diff", "-recursive"))
        configuration = find_cli_configuration(servers)
        if configuration or (HERE / ".terraform" / "providers").is_dir():
            passed.append(run_check("validity", terraform, "validate", "-no-color", configuration=configuration))
            passed.append(run_check("tests", terraform, "test", "-no-color", configuration=configuration))
        else:
            report_not_checked("validity and tests", "terraform -chdir=infra init -backend=false gets the provider")
    if tflint is None:
        report_not_checked("lint", "tflint is not installed")
    else:
        passed.append(run_check("lint", tflint))
    return 0 if all(passed) else 1


def find_cli_configuration(servers: str) -> str:
    """Returns the path of a CLI configuration that names the provider's location, or "" if there is none."""
    configuration = os.environ.get("TF_CLI_CONFIG_FILE", "")
    generator = Path(servers, "terraform-google", "config")
    if not Path(configuration).is_file() and servers and generator.is_file():
        configuration = subprocess.run([generator], check=True, capture_output=True, text=True).stdout.strip()
    if Path(configuration).is_file() and PROVIDER in Path(configuration).read_text():
        return configuration
    return ""


def run_check(what: str, *command: str, configuration: str = "") -> bool:
    """Runs `command`, prints whether it passed, and returns that. Its output is printed only if it failed."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    if configuration:
        environment["TF_CLI_CONFIG_FILE"] = configuration
    process = subprocess.run(
        command, check=False, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if process.returncode:
        print(process.stdout, file=sys.stderr)
    print(f"Terraform, {what}: {'FAILED' if process.returncode else 'passed'}")
    return process.returncode == 0


def report_not_checked(what: str, why: str) -> None:
    """Prints that a check did not run."""
    print(f"Terraform, {what}: NOT CHECKED, {why}")


if __name__ == "__main__":
    sys.exit(main())
